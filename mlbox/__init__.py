"""mlbox: freeze, share and run reproducible ML environments."""

__version__ = "0.1.0"
