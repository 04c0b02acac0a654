"""What gpu/frameworks.toml is filled from: wheels of your index, read by ranges and not fetched whole.

    python tests/benchmarks/wheel_facts.py torch==2.9.1 'jax-cuda13-plugin==0.10.2' …          # metadata only, seconds
    python tests/benchmarks/wheel_facts.py --code 'torch/lib/libtorch_cuda.so' torch==2.9.1     # and code of members

A line of JSON for each wheel: what it requires of CUDA's wheels, which CUDA it says it was built with, and of the
members that --code names (all that match a shell pattern) the libraries they need and the architectures they have code
for. Those members are inflated to a temporary file: 500 MB are fetched for torch's largest.
"""

import argparse
import email.parser
import fnmatch
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from mlbox.elf import read_elf
from mlbox.gpu.fatbin import device_code
from mlbox.http import Http
from mlbox.lock.python.config import indexes_for
from mlbox.lock.python.model import File
from mlbox.lock.python.pages import files_of_project
from mlbox.project.discover import load_project

_BLOCK = 32 << 20
_CUDA = re.compile(r"^(nvidia-|cuda-|triton|torch|jax|cupy|tensorflow)")
_SAYS = re.compile(r"^(?:__version__|version|cuda)(?:: [^=]*)? = '([^']*)'", re.MULTILINE)


class Remote(io.RawIOBase):
    """A file of a server that answers to ranges."""

    def __init__(self, http: Http, file: File) -> None:
        self._http, self._url, self._position = http, file.url, 0
        self.size = file.size or http.size_of(file.url)
        self._start, self._block = 0, b""
        self.fetched = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        wanted = self.size - self._position if size < 0 else min(size, self.size - self._position)
        found = b""
        while len(found) < wanted:
            within = self._position - self._start
            if not 0 <= within < len(self._block):
                self._fetch(max(wanted - len(found), 64 << 10))
                within = 0
            part = self._block[within : within + wanted - len(found)]
            found += part
            self._position += len(part)
        return found

    def _fetch(self, size: int) -> None:
        # What is read in one go after another is a large member: larger blocks for it.
        follows = self._position == self._start + len(self._block) and self._block
        end = min(self._position + (_BLOCK if follows else size), self.size) - 1
        headers = {"Range": f"bytes={self._position}-{end}", "Accept-Encoding": "identity"}
        self._block = self._http.get(self._url, limit=end - self._position + 1, headers=headers)
        self._start = self._position
        self.fetched += len(self._block)


def wheel_of(http: Http, name: str, version: str, *, python: str = "cp312") -> File:
    """Return the wheel of a release for Linux on x86-64 and that Python (or any)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "requirements.txt").touch()
        index = indexes_for(load_project(Path(folder))).default
    assert index is not None, "no index is configured"
    fitting = [file for file in files_of_project(http, index.url, name) if _fits(file.filename, version, python)]
    assert fitting, f"the index has no wheel of {name} {version} for Linux on x86-64"
    return max(fitting, key=lambda file: (python in file.filename, file.filename))


def _fits(filename: str, version: str, python: str) -> bool:
    if not filename.endswith(".whl"):
        return False
    try:
        _, found, _, tags = parse_wheel_filename(filename)
    except ValueError:
        return False
    return str(found) == version and any(
        (tag.platform == "any" or ("linux" in tag.platform and "x86_64" in tag.platform))
        and (tag.interpreter in (python, "py3") or tag.abi == "abi3")
        and "musl" not in tag.platform
        for tag in tags
    )


def facts(http: Http, file: File, patterns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what the wheel says of CUDA, and what those of its members have that a pattern names."""
    remote = Remote(http, file)
    with zipfile.ZipFile(remote) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        headers = email.parser.BytesHeaderParser().parsebytes(archive.read(metadata))
        lines = [Requirement(line) for line in headers.get_all("Requires-Dist") or ()]
        own = {name.rpartition("/")[2] for name in names}
        said = [name for name in names if re.fullmatch(r"(torch|torchvision|torchaudio)/version\.py", name)]
        return {
            "name": canonicalize_name(headers["Name"]),
            "version": headers["Version"],
            "filename": file.filename,
            "size": remote.size,
            "requires": [str(one) for one in lines if _CUDA.match(one.name)],
            "says": [found[1] for name in said for found in _SAYS.finditer(archive.read(name).decode())],
            "libraries": dict(_libraries(archive, names, own, patterns)),
            "fetched": remote.fetched,
        }


def _libraries(
    archive: zipfile.ZipFile, names: list[str], own: set[str], patterns: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns) and ".so" in name.rpartition("/")[2]:
            with tempfile.NamedTemporaryFile(dir=tempfile.gettempdir()) as target:
                with archive.open(name) as member:
                    shutil.copyfileobj(member, target, 1 << 20)
                target.flush()
                elf, code = read_elf(Path(target.name)), device_code(Path(target.name))
            if elf is None:  # a text that is named like one
                continue
            needed = [one for one in elf.needed if one not in own and not re.match(r"lib(c|m|dl|rt|pthread)\.so", one)]
            yield name, {"needed": needed, "code": {str(one): many for one, many in code.counts} if code else {}}


def main() -> None:
    """Print the facts of the releases that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", nargs="+", help="NAME==VERSION")
    parser.add_argument("--code", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--python", default="cp312")
    given, http = parser.parse_args(), Http()
    for release in given.release:
        name, _, version = release.partition("==")
        print(
            json.dumps(facts(http, wheel_of(http, name, version, python=given.python), tuple(given.code))), flush=True
        )


if __name__ == "__main__":
    main()
