"""Runs inside the image's root file system, with its Python: byte code for unpacked wheels. Standard library only.

Usage: compile_hook.py PIECES OUT FOLDER... < one piece key per line. PIECES/KEY/fs/FOLDER holds modules; their byte
code goes to OUT/KEY/FOLDER. Byte code is unchecked (PEP 552): it holds neither times nor sizes, and Python
uses it without looking at the source, which in an image never changes.
"""

import os
import py_compile
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

CHUNK = 50


def compile_one(job: "tuple[str, str, str]") -> None:
    """Compile one module; what is no Python of this version (templates, old tests) stays without byte code."""
    source, target, name = job
    try:
        py_compile.compile(
            source, target, dfile=name, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
    except (py_compile.PyCompileError, UnicodeError, ValueError, RecursionError):
        return


def jobs(root: Path, out: Path, folder: str) -> "list[tuple[str, str, str]]":
    """Return (source, byte code, name in the image) of every module below a folder of a piece."""
    sources = (path for path in sorted((root / folder).rglob("*.py")) if path.is_file() and not path.is_symlink())
    names = [(path, path.relative_to(root)) for path in sources]
    return [(str(path), str(out / _code(name)), f"/{name}") for path, name in names]


def _code(source: Path) -> Path:
    return source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"


def main() -> None:
    """Compile everything with all processors."""
    pieces, out = Path(sys.argv[1]), Path(sys.argv[2])
    keys = sys.stdin.read().split()
    todo = [job for key in keys for folder in sys.argv[3:] for job in jobs(pieces / key / "fs", out / key, folder)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(compile_one, todo, chunksize=CHUNK):
            pass


if __name__ == "__main__":
    main()
