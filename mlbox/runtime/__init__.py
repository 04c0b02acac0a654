"""RUN: an image configuration and options become an OCI bundle, an OCI runtime runs it, a monitor keeps it."""
