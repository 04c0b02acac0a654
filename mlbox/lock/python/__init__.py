"""PIN, Python packages: resolved by uv or pip-tools for the target, one file per package."""
