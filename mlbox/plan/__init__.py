"""DECIDE: a Lock becomes a BuildPlan. Pure and printable: the same on every machine."""
