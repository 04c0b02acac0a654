"""The data folders that travel with mlbox: templates/ and gpu/."""

from pathlib import Path


def folder(name: str) -> Path:
    """Return the data folder `name`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    for candidate in (package / "_data" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"mlbox was installed without its {name}/ folder")
