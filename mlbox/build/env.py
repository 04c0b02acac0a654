"""The empty virtual environment that wheels are unpacked into: what `python -m venv --without-pip` makes."""

from pathlib import Path
from typing import NamedTuple

from mlbox.plan.model import HOME, PREFIX, EnvPiece
from mlbox.store.tree import Tree, TreeWriter

_CONFIG = """\
home = {home}
include-system-site-packages = false
version = {full}
executable = {home}/python{short}
command = {home}/python{short} -m venv /{prefix}
"""

# For shells inside a container and for Dockerfiles that source it; leaving is what `exit` is for.
_ACTIVATE = """\
VIRTUAL_ENV=/{prefix}
PATH="$VIRTUAL_ENV/bin:$PATH"
export VIRTUAL_ENV PATH
unset PYTHONHOME
hash -r 2>/dev/null || true
"""


class Skeleton(NamedTuple):
    """The empty environment, before it is written anywhere; paths are relative to the image's root."""

    files: dict[str, bytes]
    links: dict[str, str]
    folders: tuple[str, ...]


def skeleton(piece: EnvPiece) -> Skeleton:
    """Return what the environment of `piece` consists of."""
    home, python = piece.home or HOME, f"python{piece.python}"
    config = _CONFIG.format(home=home, full=piece.python_full, short=piece.python, prefix=PREFIX)
    return Skeleton(
        files={
            f"{PREFIX}/pyvenv.cfg": config.encode(),
            f"{PREFIX}/bin/activate": _ACTIVATE.format(prefix=PREFIX).encode(),
        },
        links={
            f"{PREFIX}/bin/{python}": f"{home}/{python}",
            f"{PREFIX}/bin/python3": python,
            f"{PREFIX}/bin/python": python,
            f"{PREFIX}/lib64": "lib",
        },
        folders=(f"{PREFIX}/include/{python}", f"{PREFIX}/lib/{python}/site-packages"),
    )


def fill_env(root: Path, piece: EnvPiece) -> Tree:
    """Make the environment of `piece` below the new folder `root`."""
    writer = TreeWriter(root, "python environment", mtime=piece.epoch)
    empty = skeleton(piece)
    for path, data in empty.files.items():
        writer.file(path, [data])
    for path, target in empty.links.items():
        writer.symlink(path, target)
    for path in empty.folders:
        writer.directory(path)
    return writer.finish()
