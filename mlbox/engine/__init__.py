"""The only package that wires the parts together: what a command means, without a terminal."""
