"""Ubuntu made of Debian: its packages packed again as Ubuntu packs them, and what tells its images apart."""

import hashlib
import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from backports import zstd
from fakes.debian import Member, ar_of, tar_of

SUFFIX = "ubuntu0.1"
OS_RELEASE = b"""PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=noble
"""


def repacked(deb: bytes) -> tuple[bytes, str]:
    """Return a package of Debian's as Ubuntu would have it, and its control file.

    Both tars are compressed with zstd, the version has Ubuntu's suffix, and so have the versions that it asks for
    exactly: all packages of one source have to be packed again.
    """
    parts = dict(_members(deb))
    control = [_renamed(member) for member in _tar(lzma.decompress(parts["control.tar.xz"]))]
    packed = ar_of(
        [
            ("debian-binary", b"2.0\n"),
            ("control.tar.zst", zstd.compress(tar_of(control))),
            ("data.tar.zst", zstd.compress(lzma.decompress(parts["data.tar.xz"]))),
        ]
    )
    return packed, next(member.data for member in control if member.path == "./control").decode()


def stanza_of(control: str, deb: bytes, filename: str) -> str:
    """Return what an index says of the package `deb` at `filename`."""
    place = f"Filename: {filename}\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n"
    return control.strip() + "\n" + place


def publish(root: Path, debs: list[Path], folder: str) -> list[str]:
    """Pack the packages `debs` again into the pool below `root`, and return their stanzas."""
    stanzas = []
    for path in debs:
        data, control = repacked(path.read_bytes())
        name = re.search(r"^Package: (\S+)", control, re.MULTILINE)
        target = root / f"pool/{folder}/{name[1] if name else ''}.deb"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        stanzas.append(stanza_of(control, data, str(target.relative_to(root))))
    return stanzas


def _renamed(member: Member) -> Member:
    if member.path != "./control":
        return member
    text = re.sub(r"^(Version: \S+)$", rf"\1{SUFFIX}", member.data.decode(), flags=re.MULTILINE)
    return member._replace(data=re.sub(r"\(= ([^)]+)\)", rf"(= \1{SUFFIX})", text).encode())


def _members(deb: bytes) -> Iterator[tuple[str, bytes]]:
    position = 8
    while position < len(deb):
        header = deb[position : position + 60]
        size = int(header[48:58])
        yield header[:16].decode().strip().rstrip("/"), deb[position + 60 : position + 60 + size]
        position += 60 + size + size % 2


def _tar(data: bytes) -> Iterator[Member]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            yield Member(member.name, content.read() if content else b"", member.mode, member.type, member.linkname)
