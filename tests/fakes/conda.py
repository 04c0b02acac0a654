"""Conda packages and channels made on the fly, as the ecosystem's own tools make them."""

import bz2
import hashlib
import io
import json
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLACEHOLDER = "/opt/" + "placehold_" * 24
"""What builders write where the environment's prefix will be; as long as theirs."""
_TIME = 1767225600


class File(NamedTuple):
    """A member of a package."""

    data: bytes = b""
    mode: int = 0o644
    link: str = ""
    """Target of a symlink, or of a hard link."""
    hard: bool = False
    kind: bytes = b""
    """Of a tar, when it is none of those."""


class Made(NamedTuple):
    """A package file and what a channel's index says of it."""

    filename: str
    data: bytes
    index: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Of the file (hex)."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def md5(self) -> str:
        """Of the file (hex)."""
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


def make_package(
    name: str,
    version: str = "1.0",
    build: str = "h0_0",
    *,
    files: Mapping[str, File | bytes] | None = None,
    subdir: str = "linux-64",
    depends: Sequence[str] = (),
    noarch: str = "",
    entry_points: Sequence[str] = (),
    kind: str = ".conda",
    paths: Sequence[Mapping[str, Any]] | None = None,
    info: Mapping[str, bytes] | None = None,
    info_last: bool = False,
) -> Made:
    """Return a package with these files; `paths` and `info` replace what is written of itself."""
    members = {path: File(one) if isinstance(one, bytes) else one for path, one in (files or {}).items()}
    index: dict[str, Any] = {
        "arch": None if noarch else "x86_64",
        "build": build,
        "build_number": 0,
        "depends": list(depends),
        "license": "MIT",
        "name": name,
        "platform": None if noarch else "linux",
        "subdir": subdir,
        "timestamp": _TIME * 1000,
        "version": version,
    }
    index |= {"noarch": noarch} if noarch else {}
    listed = [_path(path, one, members) for path, one in members.items()] if paths is None else list(paths)
    about = {
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps({"paths": listed, "paths_version": 1}).encode(),
        "info/files": "".join(f"{path}\n" for path in members).encode(),
        "info/about.json": b"{}",
    }
    if noarch == "python":
        link = {"noarch": {"type": "python", "entry_points": list(entry_points)}, "package_metadata_version": 1}
        about["info/link.json"] = json.dumps(link).encode()
    about = {path: data for path, data in (about | dict(info or {})).items() if data != b"none"}
    described = {path: File(data) for path, data in about.items()}
    stem = f"{name}-{version}-{build}"
    if kind == ".tar.bz2":
        order = {**members, **described} if info_last else {**described, **members}
        return Made(stem + kind, bz2.compress(tar(order)), index)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for filename, data in (
            ("metadata.json", b'{"conda_pkg_format_version": 2}'),
            (f"pkg-{stem}.tar.zst", zstd.compress(tar(members))),
            (f"info-{stem}.tar.zst", zstd.compress(tar(described))),
        ):
            archive.writestr(zipfile.ZipInfo(filename, (1980, 1, 1, 0, 0, 0)), data)
    return Made(stem + kind, buffer.getvalue(), index)


def tar(members: Mapping[str, File]) -> bytes:
    """Return a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, one in members.items():
            member = tarfile.TarInfo(path)
            member.mode, member.mtime, member.size = one.mode, _TIME, len(one.data)
            if one.link:
                member.type, member.linkname = (tarfile.LNKTYPE if one.hard else tarfile.SYMTYPE), one.link
            member.type = one.kind or member.type
            archive.addfile(member, io.BytesIO(one.data))
    return buffer.getvalue()


def _path(path: str, one: File, members: Mapping[str, File]) -> dict[str, Any]:
    data = members[one.link].data if one.hard and one.link in members else one.data
    found: dict[str, Any] = {
        "_path": path,
        "path_type": "softlink" if one.link and not one.hard else "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    if PLACEHOLDER.encode() in data:
        found |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "binary" if b"\0" in data else "text"}
    return found


def make_python(build: str = "h1_0_cpython") -> Made:
    """Return a conda package of the Python that runs this, without what a test does not need."""
    version = ".".join(map(str, sys.version_info[:3]))
    short = ".".join(map(str, sys.version_info[:2]))
    program = Path(sys.executable).resolve()
    libraries = str(sysconfig.get_config_var("LIBDIR")).encode()
    # As conda's own looks for them: beside itself, not where it was built.
    beside = b"$ORIGIN/../lib".ljust(len(libraries), b"\0")
    files = {f"bin/python{short}": File(program.read_bytes().replace(libraries, beside), 0o755)}
    files |= {f"bin/{name}": File(link=f"python{short}", mode=0o777) for name in ("python", "python3")}
    standard = Path(sysconfig.get_path("stdlib"))
    for path in sorted(standard.rglob("*")):
        below = path.relative_to(standard)
        if path.is_file() and not _UNWANTED.intersection(below.parts) and not below.parts[0].startswith("config-"):
            files[f"lib/python{short}/{below}"] = File(path.read_bytes())
    files[f"lib/python{short}/site-packages/README.txt"] = File(b"packages go here\n")
    for path in sorted(Path(sysconfig.get_config_var("LIBDIR")).glob(f"libpython{short}.so*")):
        files[f"lib/{path.name}"] = File(path.resolve().read_bytes(), 0o755)
    return make_package("python", version, build, files=files, depends=["__glibc >=2.17"])


_UNWANTED = {"test", "tests", "__pycache__", "site-packages", "dist-packages", "idlelib", "tkinter", "lib2to3"}
_UNWANTED |= {"ensurepip", "turtledemo", "pydoc_data", "__phello__"}


def channel_files(packages: Sequence[Made]) -> dict[str, bytes]:
    """Return the files of a channel that has these packages, by path."""
    subdirs = {"linux-64", "linux-aarch64", "noarch", *(one.index["subdir"] for one in packages)}
    files = {f"{one.index['subdir']}/{one.filename}": one.data for one in packages}
    for subdir in subdirs:
        document: dict[str, Any] = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}}
        for one in packages:
            if one.index["subdir"] == subdir:
                table = "packages.conda" if one.filename.endswith(".conda") else "packages"
                hashes = {"md5": one.md5, "sha256": one.sha256, "size": len(one.data)}
                document[table][one.filename] = one.index | hashes
        files[f"{subdir}/repodata.json"] = json.dumps(document).encode()
    return files
