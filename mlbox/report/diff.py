"""What differs between two images: packages, configuration, layers, files, and the lines that caused it."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec

from mlbox.lock.diff import Change, diff_locks
from mlbox.lock.model import Lock
from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import Image
from mlbox.report.contents import Contents, LayerContents
from mlbox.report.filediff import FileChange, diff_files
from mlbox.report.installed import Owner, OwnerKind
from mlbox.report.requirers import Graph, chains_to, conda_graph, debian_graph, python_graph
from mlbox.store.store import Store

What = Literal["added", "removed", "changed"]
_LOCK_TABLE = re.compile(r"\[\[(package|conda-package|deb)\]\]")
_LOCK_NAME = re.compile(r'name = "([^"\\]+)"')


class Side(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One of the two images, with what explains it."""

    image: Image
    contents: Contents
    lock: Lock | None = None
    lock_bytes: bytes = b""

    @cached_property
    def lines(self) -> dict[tuple[str, str], int]:
        """Where each package stands in the lock."""
        return lock_lines(self.lock_bytes)

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        """Who asks for whom, by kind of package."""
        packages = self.contents.database.packages
        made = {"python": python_graph, "conda": conda_graph, "debian": debian_graph}
        return {kind: make(self.lock, packages) for kind, make in made.items()}


_TABLES: dict[str, str] = {"python": "package", "conda": "conda-package", "debian": "deb"}
"""What the lock calls them."""


class PackageChange(msgspec.Struct, frozen=True, kw_only=True):
    """A package that is in one image only, or in another version, or with other content."""

    what: What
    kind: OwnerKind
    name: str
    old: str
    """Version in the first image; empty when it was added."""
    new: str
    size: int
    """Bytes of file content it takes more (less when below zero) in the second image."""
    cause: str
    """The shortest chain from the project's line to it: 'requirements.txt:3 > scikit-learn > scipy'."""
    lock_line: int
    """Line of its entry in the lock of the image that has it (the second, when both do); 0 without a lock."""


class ConfigChange(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs in the configuration; `old` or `new` is empty where it is missing."""

    field: str
    """'env PATH', 'cmd', 'user', 'label dev.mlbox.python', 'architecture', ..."""
    old: str
    new: str


class LayerChange(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of one image or both."""

    what: Literal["shared", "added", "removed", "changed"]
    name: str
    old: DiffID | Literal[""]
    new: DiffID | Literal[""]
    old_size: int
    """Bytes of its tar in the first image."""
    new_size: int


class ImageDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that differs between two images; all empty and every layer shared when they are the same."""

    old: str
    new: str
    old_digest: Digest
    new_digest: Digest
    old_size: int
    """Bytes of all layers' tars."""
    new_size: int
    packages: tuple[PackageChange, ...]
    config: tuple[ConfigChange, ...]
    layers: tuple[LayerChange, ...]
    files: tuple[FileChange, ...]
    lock: tuple[Change, ...]
    """What differs between the attached locks; empty when one of them is missing."""


def diff_images(store: Store, old: Side, new: Side) -> ImageDiff:
    """Return what differs; contents of files are compared only where everything else is equal."""
    return ImageDiff(
        old=old.contents.name,
        new=new.contents.name,
        old_digest=old.image.digest,
        new_digest=new.image.digest,
        old_size=sum(layer.size for layer in old.image.manifest.layers),
        new_size=sum(layer.size for layer in new.image.manifest.layers),
        packages=tuple(_packages(old, new)),
        config=tuple(_config(old.image, new.image)),
        layers=tuple(_layers(old.contents, new.contents)),
        files=tuple(diff_files(store, old.contents, new.contents)),
        lock=diff_locks(old.lock, new.lock).changes if old.lock and new.lock else (),
    )


def lock_lines(data: bytes) -> dict[tuple[str, str], int]:
    """Return the line on which each package ('package' or 'deb', name) of a lock has its entry."""
    found: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if line.startswith("["):
            header = _LOCK_TABLE.fullmatch(line.strip())
            table = header[1] if header else ""
        elif table and (name := _LOCK_NAME.fullmatch(line.strip())):
            found.setdefault((table, name[1]), number)
    return found


def cause_of(side: Side, owner: Owner) -> str:
    """Return the shortest chain from a line of the project to a package, empty when nothing says."""
    chains, _ = chains_to(side.graphs[owner.kind], owner.name, 1)
    return " > ".join(chains[0]) if chains else ""


class _Had(NamedTuple):
    owner: Owner
    size: int
    sha256: str
    """Of the file it was locked to; empty when nothing says."""


def _packages(old: Side, new: Side) -> Iterator[PackageChange]:
    before, after = _owned(old), _owned(new)
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was and now and was.owner == now.owner and not ("" != was.sha256 != now.sha256 != ""):
            continue
        side, here = (new, now) if now else (old, was)
        if here is None:
            continue
        table = _TABLES[here.owner.kind]
        yield PackageChange(
            what="changed" if was and now else "added" if now else "removed",
            kind=here.owner.kind,
            name=here.owner.name,
            old=was.owner.version if was else "",
            new=now.owner.version if now else "",
            size=(now.size if now else 0) - (was.size if was else 0),
            cause=cause_of(side, here.owner),
            lock_line=side.lines.get((table, here.owner.name), 0),
        )


def _owned(side: Side) -> dict[tuple[str, str], _Had]:
    sizes: defaultdict[Owner, int] = defaultdict(int)
    for owner, place in side.contents.held():
        if owner.kind in _TABLES:
            sizes[owner] += place.entry.size
    lock = side.lock
    hashes = {("debian", deb.name): deb.sha256 for deb in lock.debs} if lock else {}
    hashes |= {("python", package.name): package.sha256 for package in lock.packages} if lock else {}
    hashes |= {("conda", package.name): package.sha256 for package in lock.conda} if lock else {}
    return {
        (owner.kind, owner.name): _Had(owner, size, hashes.get((owner.kind, owner.name), ""))
        for owner, size in sorted(sizes.items())
    }


def _config(old: Image, new: Image) -> Iterator[ConfigChange]:
    before, after = dict(config_fields(old)), dict(config_fields(new))
    for field in sorted(before.keys() | after.keys()):
        was, now = before.get(field, ""), after.get(field, "")
        if was != now:
            yield ConfigChange(field=field, old=was, new=now)


def config_fields(image: Image) -> Iterator[tuple[str, str]]:
    """Yield name and value of everything in an image's configuration that a container notices."""
    yield "architecture", f"{image.config.architecture}{image.config.variant and '/' + image.config.variant}"
    yield "os", image.config.os
    yield "created", image.config.created
    config = image.config.config
    for variable in config.env:
        name, _, value = variable.partition("=")
        yield f"env {name}", value
    yield from ((f"label {name}", value) for name, value in config.labels.items())
    yield from ((f"port {port}", "exposed") for port in config.exposed_ports)
    yield from ((f"volume {path}", "declared") for path in config.volumes)
    for field in ("user", "working_dir", "stop_signal"):
        yield field.replace("_", "-"), getattr(config, field)
    for field in ("entrypoint", "cmd", "healthcheck"):
        if value := getattr(config, field):
            yield field, msgspec.json.encode(value).decode()


def _layers(old: Contents, new: Contents) -> Iterator[LayerChange]:
    before = {layer.diff_id: layer for layer in old.layers}
    after = {layer.diff_id: layer for layer in new.layers}
    # A layer that changed keeps its name; names of foreign layers say nothing.
    gone = {layer.name: layer for layer in old.layers if layer.diff_id not in after}
    for layer in new.layers:
        same, was = before.get(layer.diff_id), gone.get(layer.name)
        if same is not None:
            yield _layer_change("shared", same, layer)
        elif was is not None:
            yield _layer_change("changed", gone.pop(layer.name), layer)
        else:
            yield _layer_change("added", None, layer)
    yield from (_layer_change("removed", layer, None) for layer in old.layers if gone.get(layer.name) is layer)


def _layer_change(
    what: Literal["shared", "added", "removed", "changed"], old: LayerContents | None, new: LayerContents | None
) -> LayerChange:
    return LayerChange(
        what=what,
        name=new.name if new else old.name if old else "",
        old=old.diff_id if old else "",
        new=new.diff_id if new else "",
        old_size=old.size if old else 0,
        new_size=new.size if new else 0,
    )
