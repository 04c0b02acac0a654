"""EXECUTE: a BuildPlan becomes an image in the store. Steps that need a container take a StepRunner."""
