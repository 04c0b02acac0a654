"""What reads the bytes of strangers, each as a function of bytes: only MlboxError may come out of it.

Most formats protect themselves by checksums and digests, behind which blind changes never come. So the input of some
targets is what lies below them (headers of a tar, the parts of an archive), and the rest is computed here.
"""

import bz2
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from backports import zstd
from fakes.bundles import BLOBS, NAME, described, forged, small, written
from fakes.conda import PLACEHOLDER, File, make_package
from fakes.conda import tar as conda_tar
from fakes.debian import Member, ar_of, deb_bytes, directory, symlink
from fakes.elf import shared_library
from fakes.fatbin import cuda_library
from fakes.foreign import SPARSE
from fakes.tars import BLOCK, END, file, folder, hardlink, header, long_name, pax, summed
from fakes.tars import symlink as tar_symlink
from fakes.wheels import piece_of, wheel_files
from fuzz import locks

from mlbox.build.conda import unpack_conda
from mlbox.build.deb import unpack_deb
from mlbox.build.sdist import unpack_sdist
from mlbox.build.wheel import unpack_wheel
from mlbox.build.zip import Limits, Zip
from mlbox.codec import canonical_json, decode_json
from mlbox.elf import mentions, read_elf, read_soname
from mlbox.engine.bundles.check import manifest_for_others
from mlbox.engine.bundles.load import load_bundle, verify_bundle
from mlbox.errors import MlboxError, RegistryError
from mlbox.gpu.fatbin import device_code
from mlbox.http import Answer
from mlbox.lock.debian.packages import Packages
from mlbox.lock.file import decode_lock, encode_lock
from mlbox.lock.foreign.importing import reader_of
from mlbox.lock.foreign.model import Selection
from mlbox.lock.model import Base, Lock, Package, Target
from mlbox.lock.python.pages import files_of_page
from mlbox.lock.python.sdist import read_archive
from mlbox.oci.artifact import ArtifactManifest
from mlbox.oci.digest import DiffID, digest_of, hex_of
from mlbox.oci.image import INDEX, LAYER_TAR, MANIFEST, ImageIndex, Manifest, local_image, parse_config, parse_image
from mlbox.oci.layer import EPOCH
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.plan.model import CondaPiece
from mlbox.registry.archive import load_images
from mlbox.registry.bundle import FORMAT, BundledImage, BundledLayer, Contents
from mlbox.registry.bundle_have import FIRST_LINE, parse_have
from mlbox.registry.challenge import parse_challenges
from mlbox.registry.dockerconfig import load, logins_of
from mlbox.registry.listing import next_page
from mlbox.registry.manifests import judged
from mlbox.store.compression import decompressed
from mlbox.store.fsck import fsck
from mlbox.store.store import Store
from mlbox.trust.keys import parse_public
from mlbox.trust.policy import parse as parse_policy
from mlbox.trust.signature import parse_bundle
from mlbox.trust.statement import parse_statement

A = "a" * 64
MACHINE = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
SMALL = Limits(total=1 << 24, small=1 << 20, files=1000)
_MARK = b"\n--\n"
"""Between the parts of an input that is made into an archive."""


class Reader(NamedTuple):
    """A function that reads bytes in an empty folder, and bytes it understands."""

    read: Callable[[bytes, Path], None]
    seeds: Sequence[bytes]


def _mended(data: bytes) -> bytes:
    """Return a tar whose headers all have the right checksum."""
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    return b"".join(summed(one) if len(one) == BLOCK and one[257:262] == b"ustar" else one for one in blocks)


def _parts(data: bytes) -> list[bytes]:
    """Return the parts of an input; in a JSON '$0' is the digest of the first part before it, '#0' its size."""
    parts: list[bytes] = []
    for part in data.split(_MARK):
        is_json = part.lstrip().startswith((b"{", b"["))
        parts.append(re.sub(rb"([$#])(\d)", partial(_said, tuple(parts)), part) if is_json else _mended(part))
    return parts


def _said(parts: Sequence[bytes], found: re.Match[bytes]) -> bytes:
    number = int(found[2])
    if number >= len(parts):
        return found[0]
    return digest_of(parts[number]).encode() if found[1] == b"$" else b"%d" % len(parts[number])


# --- layers and archives


def _layer(data: bytes, room: Path) -> None:
    data = _mended(data)
    with _store(room) as store:
        diff_id = DiffID(digest_of(data))
        store.layers.ingest(diff_id, [data], "the layer", limit=1 << 24)
        assert b"".join(bytes(chunk) for chunk in store.layers.tar(diff_id)) == data


def _packed(data: bytes, room: Path) -> None:
    size = 0
    for chunk in decompressed([data[:7], data[7:]], 1 << 24, bzip2=True):
        size += len(chunk)
    assert size <= 1 << 24


def _archive(data: bytes, room: Path) -> None:
    """Load an archive: one whole tar, or the parts of an OCI layout or of what docker writes."""
    path = room / "archive.tar"
    path.write_bytes(_archived(_parts(data)) if _MARK in data else _mended(data))
    with _store(room) as store:
        load_images(store, path, arch="amd64")


def _archived(parts: Sequence[bytes]) -> bytes:
    *blobs, index = parts
    if index.lstrip().startswith(b"["):
        members = [(str(number), blob) for number, blob in enumerate(blobs)] + [("manifest.json", index)]
    else:
        named = {f"blobs/sha256/{hex_of(digest_of(blob))}": blob for blob in blobs}
        members = [*named.items(), ("index.json", index)]
    return b"".join(file(name, data) for name, data in members) + END


class _store:
    """A store that must be clean when all was said."""

    def __init__(self, room: Path) -> None:
        self._store = Store(Home(room / "store"))

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *problem: object) -> None:
        try:
            report = fsck(self._store, deep=True)
            assert report.clean and not report.leftovers, report
        finally:
            self._store.close()


def _bundle(data: bytes, room: Path) -> None:
    path = room / "x.bundle"
    path.write_bytes(_bundled(_parts(data)) if _MARK in data else data)
    with _store(room) as store:
        try:
            verify_bundle(store, path)
        finally:
            load_bundle(store, path)


def _bundled(parts: Sequence[bytes]) -> bytes:
    *blobs, document = parts
    try:
        contents = msgspec.json.decode(document, type=Contents)
        return written(contents, {**BLOBS, **{digest_of(blob): blob for blob in blobs}})
    except (ValueError, RecursionError, KeyError, MlboxError):
        return forged(document)


# --- documents


def _manifest(data: bytes, room: Path) -> None:
    for kind in (Manifest, ImageIndex, ArtifactManifest):
        with _excused():
            decode_json(data, kind, what="it", error=RegistryError)
    with _excused():
        judged("it", data, INDEX)
    with _excused():
        local_image(data, [0] * len(parse_config(data, RegistryError).rootfs.diff_ids), RegistryError)
    config, _, manifest = data.partition(_MARK)
    parse_image(manifest.replace(b"$0", digest_of(config).encode()), config, RegistryError)


class _excused:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, MlboxError)


def _challenge(data: bytes, room: Path) -> None:
    text = data.decode("latin-1")
    for challenge in parse_challenges(text.split("\n")):
        assert challenge.scheme == challenge.scheme.lower()
    next_page(text)


def _reference(data: bytes, room: Path) -> None:
    found = parse_reference(data.decode("utf-8", "surrogateescape"))
    assert parse_reference(str(found)) == found == parse_reference(found.familiar)
    assert ".." not in str(found).split("/")


def _have(data: bytes, room: Path) -> None:
    parse_have(data, "it")


def _logins(data: bytes, room: Path) -> None:
    path = room / "config.json"
    path.write_bytes(data)
    file = load(path)
    if file is not None and not file.creds_store and not file.cred_helpers:  # else programs would be run
        for registry in ("docker.io", "r.example:5000"):
            logins_of(registry, (path,))("team/x")


def _trust(data: bytes, room: Path) -> None:
    for parse in (
        lambda: parse_policy(data, room / "policy.toml"),
        lambda: parse_public(data, "it"),
        lambda: parse_bundle(data),
        lambda: parse_statement(data),
    ):
        with _excused():
            parse()


# --- packages


def _zip(data: bytes, room: Path) -> None:
    path = room / "x.zip"
    path.write_bytes(data)
    with Zip(path, "it", SMALL) as archive:
        for member in archive.members.values():
            assert sum(map(len, archive.chunks(member))) == member.size


def _wheel(data: bytes, room: Path) -> None:
    """Unpack a wheel of the files in the input: name, a line's end, content."""
    members = [part.partition(b"\n") for part in data.split(_MARK)]
    files = {name.decode("utf-8", "replace"): content for name, _, content in members}
    path = room / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in wheel_files(files).items():
            archive.writestr(zipfile.ZipInfo(name[:60000]), content)
    unpack_wheel(path, room / "root", piece_of(path), SMALL)


def _deb(data: bytes, room: Path) -> None:
    path = room / "x.deb"
    control, mark, content = data.partition(_MARK)
    tars = (("control.tar", _mended(control)), ("data.tar", _mended(content)))
    path.write_bytes(ar_of((("debian-binary", b"2.0\n"), *tars)) if mark else data)
    unpack_deb(path, room / "root", epoch=EPOCH, limit=1 << 24)


def _sdist(data: bytes, room: Path) -> None:
    path = room / "x-1.0.tar.gz"
    path.write_bytes(_mended(data))
    with _excused():
        read_archive(path)
    unpack_sdist(path, room / "root", path.name, SMALL)


def _page(data: bytes, room: Path) -> None:
    """Read a page of an index: its type in the first line, then the page."""
    kind, _, body = data.partition(b"\n")
    answer = Answer("https://i.example/simple/x/", {"content-type": kind.decode("latin-1")}, body)
    for one in files_of_page(answer):
        assert one.size >= 0


def _packages(data: bytes, room: Path) -> None:
    """Read the packages of an archive of Debian's kind."""
    path = room / "Packages"
    path.write_bytes(data)
    found = Packages(path, "trixie")
    for name in found.names():
        with _excused():
            for one in (*found.named(name), *found.providing(name)):
                assert ".." not in one.path.split("/")


def _conda(data: bytes, room: Path) -> None:
    """Link a package of the tars in the input: its description and its content."""
    info, mark, content = data.partition(_MARK)
    path = room / "artifact"
    if mark:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, tar in (("pkg-x.tar.zst", content), ("info-x.tar.zst", info)):
                archive.writestr(name, zstd.compress(_mended(tar)))
        path.write_bytes(buffer.getvalue())
    else:
        path.write_bytes(bz2.compress(_mended(data), 1))
    piece = CondaPiece(
        name="x", version="1.0", build="h0_0", subdir="noarch" if mark else "linux-64", channel="c",
        sha256=A, python="3.11" if mark else "",
        filename="x-1.0-h0_0.conda" if mark else "x-1.0-h0_0.tar.bz2",
    )  # fmt: skip
    unpack_conda(path, room / "root", piece, SMALL)


def _elf(data: bytes, room: Path) -> None:
    path = room / "lib.so"
    path.write_bytes(data)
    read_elf(path)
    mentions(path, "GLIBC_2.34")
    read_soname(path, 62)
    device_code(path)


# --- locks


def _lock(data: bytes, room: Path) -> None:
    lock = decode_lock(data)
    assert decode_lock(encode_lock(lock)) == lock


def _foreign(kind: str) -> Callable[[bytes, Path], None]:
    choice = Selection(target=MACHINE, extras=() if kind in ("pdm", "pipenv") else ("e",), groups=("dev",))

    def read(data: bytes, room: Path) -> None:
        for pin in reader_of(kind)(data, choice).pins:
            assert all("/" not in one.filename for one in pin.files)

    return read


# --- what they understand

_CONFIG = b'{"architecture":"amd64","os":"linux","config":{"Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":["$0"]}}'
_DESCRIBED = b'{"mediaType":"application/vnd.oci.image.%s","digest":"$%d","size":#%d}'
_MANIFEST = b'{"schemaVersion":2,"config":%s,"layers":[%s]}' % (
    _DESCRIBED % (b"config.v1+json", 1, 1),
    _DESCRIBED % (b"layer.v1.tar", 0, 0),
)
_INDEX = b'{"schemaVersion":2,"manifests":[%s]}' % (
    (_DESCRIBED % (b"manifest.v1+json", 2, 2))[:-1] + b',"annotations":{"org.opencontainers.image.ref.name":"a:1"}}'
)
_NESTED = b'{"schemaVersion":2,"manifests":[%s]}' % (_DESCRIBED % (b"index.v1+json", 3, 3))
_DOCKER = b'[{"Config":"1","RepoTags":["a:1"],"Layers":["0"]}]'
_TAR = file("a", b"1") + END
_TARS = (
    folder("bin/") + file("bin/x", b"1", mode=0o4755, uid=5) + hardlink("y", "bin/x") + END,
    tar_symlink("out", "/etc") + file("out/x", b"2") + END,
    file("../x", b"3") + END,
    file("a/b", b"1") + file("a/.wh..wh..opq") + file(".wh.a") + header("d", b"3") + header("f", b"6") + END,
    pax({"path": "long/" * 30 + "x", "SCHILY.xattr.user.a": "b", "mtime": "1.5"}) + file("x", b"1" * 600) + END,
    pax({"mtime": "7"}, b"g") + long_name(b"n" * 200) + file("n", b"2") + END,
    *(sparse + END for sparse in SPARSE.values()),
)


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _locks() -> Iterator[bytes]:
    wheel = "x-1.0-py3-none-any.whl"
    package = Package(name="x", version="1.0", filename=wheel, sha256=A, size=7, requires=("y",))
    yield encode_lock(Lock(inputs="0" * 64, target=MACHINE, base=Base(suite="bookworm"), packages=(package,)))


def _manifest_seeds() -> Iterator[bytes]:
    for document in (_CONFIG, _MANIFEST, _INDEX):
        yield re.sub(rb"#\d", b"1", re.sub(rb"\$\d", b"sha256:" + A.encode(), document))
    config = _CONFIG.replace(b"$0", b"sha256:" + A.encode())
    yield config + _MARK + re.sub(rb"#\d", b"1", _MANIFEST.replace(b"$1", b"$0"))


def _bundle_seeds() -> Iterator[bytes]:
    tar, config = _parts(_TAR + _MARK + _CONFIG)
    image = local_image(config, [len(tar)])
    layer = BundledLayer(
        diff_id=image.config.rootfs.diff_ids[0], size=len(tar), name="l", way="blob", blob=described(tar, LAYER_TAR)
    )
    others = manifest_for_others(image, {layer.diff_id: layer.blob})
    named = BundledImage(
        digest=image.digest, names=(NAME,), config=image.manifest.config, architecture="amd64", os="linux",
        manifest=described(others, MANIFEST),
    )  # fmt: skip
    contents = Contents(format=FORMAT, images=(named,), layers=(layer,), files=small().files)
    yield written(contents, BLOBS | {digest_of(blob): blob for blob in (tar, config, others)})
    said = canonical_json(contents)
    for number, blob in enumerate((tar, config, others)):
        said = said.replace(digest_of(blob).encode(), b"$%d" % number)
    yield _MARK.join((tar, config, others, said))


def _conda_seeds() -> Iterator[bytes]:
    members = {
        "bin/tool": File(f"#!/bin/sh\nexec {PLACEHOLDER}/bin/x\n".encode(), 0o755),
        "lib/x.so": b"\x7fELF\0" + f"{PLACEHOLDER}/lib".encode() + b"\0",
        "lib/y.so": File(link="x.so", mode=0o777),
    }
    old = make_package("x", files=members, kind=".tar.bz2")
    yield bz2.decompress(old.data)
    paths = {"paths": [{"_path": "bin/tool", "path_type": "hardlink"}], "paths_version": 1}
    link = {"noarch": {"type": "python", "entry_points": ["x = y:main"]}}
    described = {"index.json": old.index, "paths.json": paths, "link.json": link}
    info = {f"info/{name}": File(json.dumps(document).encode()) for name, document in described.items()}
    yield conda_tar(info) + _MARK + conda_tar({"bin/tool": File(b"x")})


_DEB = [
    directory("./etc/"),
    Member("./etc/x", b"1"),
    symlink("./bin/y", "../etc/x"),
    Member("./usr/share/doc/x/copyright"),
]

READERS: dict[str, Reader] = {
    "layer": Reader(_layer, _TARS),
    "packed": Reader(
        _packed, [zstd.compress(b"x" * 9000) + b"\x50\x2a\x4d\x18\1\0\0\0x", bz2.compress(b"x" * 99), _TAR]
    ),
    "archive": Reader(
        _archive,
        [
            _MARK.join((_TAR, _CONFIG, _MANIFEST, _INDEX)),
            _MARK.join((_TAR, _CONFIG, _MANIFEST, _INDEX, _NESTED)),
            _MARK.join((_TAR, _CONFIG, _DOCKER)),
            _archived(_parts(_MARK.join((_TAR, _CONFIG, _DOCKER)))),
        ],
    ),
    "bundle": Reader(_bundle, list(_bundle_seeds())),
    "manifest": Reader(_manifest, list(_manifest_seeds())),
    "challenge": Reader(
        _challenge,
        [b'Bearer realm="https://t.example/token",service="s",scope="repository:a/b:pull"',
         b"Basic realm=x, Digest y==",
         b'</v2/a/tags/list?n=9&last=1>; rel="next"'],
    ),
    "reference": Reader(_reference, [b"r.example:5000/team/bert:1", b"[::1]:5/a@sha256:" + A.encode(), b"ubuntu"]),
    "have": Reader(_have, [f"{FIRST_LINE}\nartifact {A}\nlayer {A}\npiece {A}\n".encode()]),
    "logins": Reader(
        _logins, [b'{"auths":{"r.example:5000":{"auth":"bWU6cHc="},"https://index.docker.io/v1/":{"identitytoken":"x"}}}']
    ),
    "trust": Reader(
        _trust,
        [b'default = "deny"\nlocal = "allow"\n[[rule]]\nprefix = "r.example"\naction = "signed"\nkeys = ["team.pub"]\n',
         b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
         b'{"mediaType":"x","verificationMaterial":{},"dsseEnvelope":{"payload":"","payloadType":"","signatures":[]}}'],
    ),
    "zip": Reader(_zip, [_zipped({"a/b": b"1" * 99, "c": b""})]),
    "wheel": Reader(
        _wheel,
        [b"demo/__init__.py\nx = 1", b"demo-1.0.data/scripts/run\n#!python\n" + _MARK +
         b"demo-1.0.dist-info/entry_points.txt\n[console_scripts]\ngo = demo:main\n"],
    ),
    "deb": Reader(
        _deb,
        [deb_bytes(_DEB, packing=""),
         conda_tar({"./control": File(b"Package: xy\nArchitecture: amd64\n")}) + _MARK + _TAR],
    ),
    "sdist": Reader(
        _sdist,
        [folder("x-1.0/") + file("x-1.0/pyproject.toml", b"[build-system]\nrequires=['a']\n") + END,
         file("x-1.0/a.c", b"1") + hardlink("x-1.0/b.c", "x-1.0/a.c") + tar_symlink("x-1.0/c", "a.c") + END,
         _zipped({"x-1.0/setup.py": b"1"})],
    ),
    "index": Reader(
        _page,
        [b'text/html\n<base href="https://f.example/"><a href="x-1.0.tar.gz#sha256=' + A.encode() + b'">x</a>',
         b'application/json\n{"files":[{"filename":"x-1.0.zip","url":"../x-1.0.zip","hashes":{"sha256":"a"},"size":1}]}'],
    ),
    "packages": Reader(
        _packages,
        [(f"Package: xy\nVersion: 1:1.0-1\nArchitecture: all\nFilename: ./pool/x.deb\nSHA256: {A}\nSize: 7\n"
          "Depends: a (>= 1) | b:any, c\nProvides: p (= 1)\n\nPackage: z\nProvides: p\n").encode()],
    ),
    "conda": Reader(_conda, list(_conda_seeds())),
    "elf": Reader(
        _elf,
        [shared_library("libx.so.1", needed=("libc.so.6",), runpath="$ORIGIN", versions={"libc.so.6": ("GLIBC_2.34",)}),
         cuda_library(("sass", 90, "a"), ("ptx", 80, ""))],
    ),
    "lock": Reader(_lock, list(_locks())),
    "uv": Reader(_foreign("uv"), [locks.UV.encode()]),
    "poetry": Reader(_foreign("poetry"), [locks.POETRY.encode()]),
    "pdm": Reader(_foreign("pdm"), [locks.PDM.encode()]),
    "pylock": Reader(_foreign("pylock"), [locks.PYLOCK.encode()]),
    "pipenv": Reader(_foreign("pipenv"), [locks.PIPENV.encode()]),
    "conda-lock": Reader(_foreign("conda-lock"), [locks.CONDA_LOCK.encode()]),
    "pixi": Reader(_foreign("pixi"), [locks.PIXI.encode()]),
    "conda-explicit": Reader(_foreign("conda-explicit"), [locks.EXPLICIT.encode()]),
}  # fmt: skip
