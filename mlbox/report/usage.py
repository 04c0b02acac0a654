"""How many bytes of an image each package takes."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from mlbox.errors import StoreError
from mlbox.oci.digest import DiffID, Digest
from mlbox.report.contents import Contents, LayerContents
from mlbox.report.installed import PACKAGES, Owner, OwnerKind
from mlbox.store.store import Store
from mlbox.store.tree import below
from mlbox.store.view import Place

DUPLICATE = 64 << 10
"""The smallest file that is looked at as a possible duplicate, in bytes."""


class PackageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one package takes: bytes of file content, in all layers together."""

    kind: OwnerKind
    name: str
    version: str
    size: int
    files: int
    share: float
    """Of the image's content, 0 to 1."""
    layers: tuple[str, ...]
    """Names of the layers that hold it, lowest first."""


class LayerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer takes."""

    number: int
    """1 is the lowest."""
    name: str
    diff_id: DiffID
    content: int
    """Bytes of file content."""
    tar: int
    """Bytes of its tar, headers included."""
    files: int
    packages: int
    share: float


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """One of several equal files."""

    path: str
    package: str
    layer: str


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """Equal files that different packages brought."""

    sha256: str
    size: int
    """Of one copy, bytes."""
    copies: tuple[Copy, ...]

    @property
    def wasted(self) -> int:
        """Bytes that one copy would have saved."""
        return self.size * (len(self.copies) - 1)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the bytes of an image are. Sums are exact: packages and layers both add up to `content`."""

    image: str
    digest: Digest
    content: int
    """Bytes of file content of all layers."""
    tar: int
    """Bytes of all layers' tars."""
    packages: tuple[PackageUsage, ...]
    """The largest first."""
    layers: tuple[LayerUsage, ...]
    """The lowest first."""
    duplicates: tuple[Duplicate, ...]
    """Those that waste most first."""


def usage_of(store: Store, contents: Contents) -> Usage:
    """Return what takes how much of an image."""
    total = sum(layer.content for layer in contents.layers)
    return Usage(
        image=contents.name,
        digest=contents.digest,
        content=total,
        tar=sum(layer.size for layer in contents.layers),
        packages=tuple(_packages(contents, total)),
        layers=tuple(_layer(number, layer, total) for number, layer in enumerate(contents.layers)),
        duplicates=duplicates(store, contents),
    )


def duplicates(store: Store, contents: Contents, least: int = DUPLICATE) -> tuple[Duplicate, ...]:
    """Return equal files of at least `least` bytes that more than one package brought."""
    sizes: defaultdict[int, list[tuple[Owner, Place]]] = defaultdict(list)
    for owner, place in contents.held():
        if place.entry.kind == "file" and place.entry.size >= least:
            sizes[place.entry.size].append((owner, place))
    found = []
    for size, held in sizes.items():
        if len({owner for owner, _ in held}) > 1:
            found += [_duplicate(contents, size, sha, group) for sha, group in _by_hash(store, contents, held)]
    return tuple(sorted(found, key=lambda one: (-one.wasted, one.copies[0].path)))


def file_sha256(store: Store, diff_id: DiffID, place: Place) -> str:
    """Return the sha256 (hex) of a file of a layer as it lies on the disk."""
    path = below(store.layers.root(diff_id))(place.entry)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise StoreError(
            f"layer {diff_id}: /{place.entry.path} cannot be read: {problem.strerror}",
            hint="run 'mlbox fsck --repair'",
        ) from problem


def _by_hash(
    store: Store, contents: Contents, held: Iterable[tuple[Owner, Place]]
) -> Iterator[tuple[str, list[tuple[Owner, Place]]]]:
    groups: defaultdict[str, list[tuple[Owner, Place]]] = defaultdict(list)
    for owner, place in held:
        groups[file_sha256(store, contents.layers[place.layer].diff_id, place)].append((owner, place))
    yield from ((sha, group) for sha, group in groups.items() if len({owner for owner, _ in group}) > 1)


def _duplicate(contents: Contents, size: int, sha256: str, group: list[tuple[Owner, Place]]) -> Duplicate:
    copies = (
        Copy(path=place.entry.path, package=owner.label, layer=contents.layers[place.layer].name)
        for owner, place in group
    )
    return Duplicate(sha256=sha256, size=size, copies=tuple(sorted(copies, key=lambda copy: copy.path)))


def _packages(contents: Contents, total: int) -> Iterator[PackageUsage]:
    sizes: defaultdict[Owner, int] = defaultdict(int)
    files: defaultdict[Owner, int] = defaultdict(int)
    layers: defaultdict[Owner, set[int]] = defaultdict(set)
    for owner, place in contents.held():
        sizes[owner] += place.entry.size
        files[owner] += 1
        layers[owner].add(place.layer)
    for owner in sorted(sizes, key=lambda one: (-sizes[one], one)):
        yield PackageUsage(
            kind=owner.kind,
            name=owner.name,
            version=owner.version,
            size=sizes[owner],
            files=files[owner],
            share=_share(sizes[owner], total),
            layers=tuple(contents.layers[number].name for number in sorted(layers[owner])),
        )


def _layer(number: int, layer: LayerContents, total: int) -> LayerUsage:
    return LayerUsage(
        number=number + 1,
        name=layer.name,
        diff_id=layer.diff_id,
        content=layer.content,
        tar=layer.size,
        files=sum(owner is not None for owner in layer.owners),
        packages=len({owner for owner in layer.owners if owner is not None and owner.kind in PACKAGES}),
        share=_share(layer.content, total),
    )


def _share(part: int, total: int) -> float:
    return round(part / total, 6) if total else 0.0
