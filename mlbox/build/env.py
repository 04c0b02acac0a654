"""The empty virtual environment that wheels are unpacked into: what `python -m venv --without-pip` makes."""

from pathlib import Path

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


def fill_env(root: Path, piece: EnvPiece) -> Tree:
    """Make the environment of `piece` below the new folder `root`."""
    writer = TreeWriter(root, "python environment", mtime=piece.epoch)
    home = piece.home or HOME
    config = _CONFIG.format(home=home, full=piece.python_full, short=piece.python, prefix=PREFIX)
    writer.file(f"{PREFIX}/pyvenv.cfg", [config.encode()])
    writer.file(f"{PREFIX}/bin/activate", [_ACTIVATE.format(prefix=PREFIX).encode()])
    writer.symlink(f"{PREFIX}/bin/python{piece.python}", f"{home}/python{piece.python}")
    writer.symlink(f"{PREFIX}/bin/python3", f"python{piece.python}")
    writer.symlink(f"{PREFIX}/bin/python", f"python{piece.python}")
    writer.directory(f"{PREFIX}/include/python{piece.python}")
    writer.directory(f"{PREFIX}/lib/python{piece.python}/site-packages")
    writer.symlink(f"{PREFIX}/lib64", "lib")
    return writer.finish()
