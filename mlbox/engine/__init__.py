"""The only package that wires the parts together."""
