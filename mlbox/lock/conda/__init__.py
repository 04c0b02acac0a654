"""Conda packages: what a project asks for, pinned by conda-lock over rattler's solver."""
