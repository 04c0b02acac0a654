"""Byte code, compiled once by the image's own Python in a container, a piece per unpacked package.

Equal input makes equal bytes: the file holds a hash of the source instead of its time (PEP 552), names are those in the
image, and every module is compiled from its own source alone.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mlbox.build import compile_hook
from mlbox.build.step import Bind, Step, StepRunner
from mlbox.files import chunks
from mlbox.plan.model import HOME, PREFIX, BytecodePiece
from mlbox.store.tree import Tree, TreeWriter

_PIECES, _WORK = "/run/mlbox/pieces", "/run/mlbox/work"


def compile_pieces(
    pieces: Mapping[str, BytecodePiece],
    store: Path,
    lower: Sequence[Path],
    runner: StepRunner,
    scratch: Path,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Compile the modules of `pieces`, by the key of what each is `of`; return a folder with a tree per key.

    The unpacked pieces lie below `store`; `env` is what the interpreter may need to start at all. Raises BuildError
    when the compiler itself fails; a module that is no valid Python is left out.
    """
    first = next(iter(pieces.values()))
    python, home = first.python, first.home or HOME
    (scratch / "out").mkdir()
    shutil.copyfile(compile_hook.__file__, scratch / "compile.py")
    (scratch / "keys").write_text("\n".join(pieces))
    folders = f"{PREFIX}/lib/python{python}/site-packages usr/lib/python{python}"
    command = f"exec {home}/python{python} -I {_WORK}/compile.py {_PIECES} {_WORK}/out {folders} < {_WORK}/keys"
    runner.run(
        Step(
            argv=("/bin/sh", "-c", command),
            lower=tuple(lower),
            binds=(Bind(source=store, target=_PIECES), Bind(source=scratch, target=_WORK, readonly=False)),
            env={**env, "PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
        )
    )
    return scratch / "out"


def fill_bytecode(root: Path, compiled: Path, piece: BytecodePiece) -> Tree:
    """Write what `compile_pieces` made for one piece below the new folder `root`."""
    writer = TreeWriter(root, f"byte code of {piece.label}", mtime=piece.epoch)
    for folder, _, files in os.walk(compiled):
        for name in files:
            path = Path(folder, name)
            with path.open("rb") as file:
                writer.file(str(path.relative_to(compiled)), chunks(file))
    return writer.finish()
