"""Debian packages and signed archives of Debian's and Ubuntu's kind, made by hand."""

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pysequoia
from backports import zstd

from mlbox.errors import FetchError
from mlbox.lock.debian.distributions import DEBIAN, UBUNTU, Distribution
from mlbox.lock.debian.release import Keys
from mlbox.lock.debian.sources import Mirror, Mirrors

SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
_PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstd.compress}


class Member(NamedTuple):
    """One member of a package's data: a file unless `kind` says otherwise."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    target: str = ""


def directory(path: str) -> Member:
    """Return a directory."""
    return Member(path, mode=0o755, kind=tarfile.DIRTYPE)


def symlink(path: str, target: str) -> Member:
    """Return a symlink."""
    return Member(path, mode=0o777, kind=tarfile.SYMTYPE, target=target)


def tar_of(members: Sequence[Member]) -> bytes:
    """Return a tar of `members`, whatever they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.path)
            info.type, info.mode, info.linkname, info.size = member.kind, member.mode, member.target, len(member.data)
            info.uid = info.gid = 1000
            tar.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


def ar_of(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an ar archive."""
    parts = [b"!<arch>\n"]
    for name, data in members:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        parts += [header, data, b"\n" * (len(data) % 2)]
    return b"".join(parts)


def deb_bytes(
    data: Sequence[Member],
    *,
    name: str = "thing",
    fields: Mapping[str, str] | None = None,
    control: Sequence[Member] = (),
    packing: str = ".xz",
) -> bytes:
    """Return a package file."""
    said = {"Package": name, "Version": "1.0-1", "Architecture": "amd64", "Description": "a thing", **(fields or {})}
    text = "".join(f"{key}: {value}\n" for key, value in said.items()).encode()
    parts = [
        ("debian-binary", b"2.0\n"),
        ("control.tar" + packing, _PACK[packing](tar_of([Member("./control", text), *control]))),
        ("data.tar" + packing, _PACK[packing](tar_of([directory("./"), *data]))),
    ]
    return ar_of(parts)


def write_deb(path: Path, data: Sequence[Member], **more: object) -> Path:
    """Write a package file to `path` and return it."""
    path.write_bytes(deb_bytes(data, **more))  # type: ignore[arg-type]
    return path


def stanza(name: str, version: str = "1.0-1", **fields: str) -> str:
    """Return a stanza of a Packages file; Pre_Depends and the like are written with underscores."""
    digest = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    said = {
        "Package": name,
        "Version": version,
        "Architecture": "amd64",
        "Filename": f"pool/{name}_{version}.deb",
        "Size": "10",
        "SHA256": digest,
        **{key.replace("_", "-"): value for key, value in fields.items()},
    }
    return "".join(f"{key}: {value}\n" for key, value in said.items())


BASE = tuple(
    stanza(name, version, **fields)
    for name, version, fields in (
        ("base-files", "12", {"Essential": "yes", "Depends": "awk"}),
        ("mawk", "1", {"Provides": "awk"}),
        ("gawk", "2", {"Provides": "awk"}),
        ("libc6", "2.36-9+deb12u1", {"Essential": "yes"}),
        ("apt", "2", {"Depends": "libc6 (>= 2.3)"}),
        ("ca-certificates", "2023", {}),
        ("libgomp1", "12", {}),
        ("netbase", "6", {}),
        ("passwd", "4", {}),
        ("tzdata", "2024a", {}),
        ("python3", "3.11.2-1", {"Depends": "python3.11 (>= 3.11.2-1~)"}),
        ("python3.11", "3.11.2-6", {}),
    )
)
"""The least a suite must offer."""


class DebianArchive:
    """A signed archive in a folder, served through file: addresses."""

    distribution: Distribution = DEBIAN

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = pysequoia.Tsk.generate(f"{self.distribution.name} Archive (test)")
        keyrings = root / "keyrings"
        keyrings.mkdir(parents=True)
        (keyrings / f"{self.distribution.id}-archive-test.gpg").write_bytes(bytes(self.key.extract_certificate()))
        self.keys = Keys(keyrings=keyrings, trusted=root / "trusted.gpg.d")
        self.mirrors = Mirrors(main=(Mirror(root=self.url),), security=(Mirror(root=self.url),))

    @property
    def url(self) -> str:
        """The archive's root."""
        return f"file://{self.root}"

    def release_path(self, suite: str = "bookworm") -> Path:
        """Return where the InRelease of `suite` lies."""
        return self.root / "dists" / suite / "InRelease"

    def publish_all(self, stanzas: Sequence[str] = BASE, **of_suite: Sequence[str]) -> None:
        """Publish bookworm with `stanzas`, and updates and security with what `of_suite` says."""
        self.publish("bookworm", stanzas)
        self.publish("bookworm-updates", of_suite.get("updates", ()))
        self.publish("bookworm-security", of_suite.get("security", ()))

    def publish(
        self,
        suite: str,
        stanzas: Sequence[str],
        *,
        codename: str = "",
        extra: str = "",
        packing: str = ".xz",
        by_hash: bool = True,
        key: "pysequoia.Tsk | None" = None,
    ) -> None:
        """Write the index and the signed InRelease of `suite`."""
        lines = self.index(suite, "main/binary-amd64", stanzas, packing=packing, by_hash=by_hash)
        fields = f"Origin: Debian\nSuite: stable\nCodename: {codename or suite}\n{extra}"
        self.sign(suite, fields, lines, by_hash=by_hash, key=key)

    def index(self, suite: str, folder: str, stanzas: Sequence[str], *, packing: str = ".xz", by_hash: bool) -> str:
        """Write an index and return the lines of the InRelease that name it, packed and plain."""
        plain = "\n".join(stanzas).encode()
        packed = _PACK[packing](plain)
        path = f"{folder}/Packages{packing}"
        digest = hashlib.sha256(packed).hexdigest()
        place = path if not by_hash else f"{folder}/by-hash/SHA256/{digest}"
        target = self.root / "dists" / suite / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(packed)
        return (
            f" {hashlib.sha256(plain).hexdigest()} {len(plain):>8} {folder}/Packages\n"
            f" {digest} {len(packed):>8} {path}\n"
        )

    def sign(self, suite: str, fields: str, lines: str, *, by_hash: bool, key: "pysequoia.Tsk | None" = None) -> None:
        """Write the signed InRelease of `suite`."""
        text = f"{fields}Acquire-By-Hash: {'yes' if by_hash else 'no'}\nSHA256:\n{lines}"
        signed = pysequoia.sign((key or self.key).signer(), text.encode(), mode=pysequoia.SignatureMode.CLEAR)
        self.release_path(suite).write_bytes(signed)


class UbuntuArchive(DebianArchive):
    """The same as Ubuntu's are: a release's codename in all its suites, two components, one index per machine."""

    distribution = UBUNTU

    def publish_release(
        self,
        main: Sequence[str],
        universe: Sequence[str] = (),
        *,
        release: str = "noble",
        updates: Sequence[str] = (),
        security: Sequence[str] = (),
        arch: str = "amd64",
        packing: str = ".gz",
        by_hash: bool = True,
    ) -> None:
        """Publish the three suites of a release; universe has no updates."""
        for pocket, packages in (("", main), ("-updates", updates), ("-security", security)):
            suite, parts = release + pocket, {"main": packages, "universe": () if pocket else universe}
            lines = "".join(
                self.index(suite, f"{part}/binary-{arch}", stanzas, packing=packing, by_hash=by_hash)
                for part, stanzas in parts.items()
            )
            # Every machine is listed on every mirror, and only some are there.
            lines += f" {'0' * 64} 1 main/binary-riscv64/Packages\n"
            fields = f"Origin: Ubuntu\nLabel: Ubuntu\nSuite: {suite}\nVersion: 24.04\nCodename: {release}\n"
            self.sign(suite, fields, lines, by_hash=by_hash)


class FileHttp:
    """Serves file: addresses and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, url: str, *, limit: int) -> bytes:
        """Return the file's content."""
        self.asked.append(url)
        try:
            data = Path(url.removeprefix("file://")).read_bytes()
        except OSError as problem:
            raise FetchError(f"{url}: {problem}") from problem
        if len(data) > limit:
            raise FetchError(f"{url}: more than {limit} bytes")
        return data
