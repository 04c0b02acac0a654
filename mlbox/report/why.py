"""Why something is in an image: who asked for it, where it lies, what it costs."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from mlbox.errors import NotFoundError
from mlbox.lock.model import CondaPackage, Deb, Folder, Lock, Package
from mlbox.oci.digest import DiffID
from mlbox.project.requirement import normalize
from mlbox.report.contents import Contents
from mlbox.report.installed import Owner, OwnerKind
from mlbox.report.requirers import Chain, Graph, chains_to, conda_graph, debian_graph, python_graph
from mlbox.store.view import Place

_LARGEST = 5


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """One layer that holds a part of a package."""

    number: int
    """1 is the lowest."""
    layer: str
    diff_id: DiffID
    reason: str
    """Why the layer is as it is; empty where no plan says."""
    size: int
    """Bytes of file content of the package in this layer."""
    files: int
    shared_with: tuple[str, ...] = ()
    """Other images of the store that hold this layer too."""


class FileSize(msgspec.Struct, frozen=True, kw_only=True):
    """A file and its bytes."""

    path: str
    size: int


class WhyPackage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that explains one package of an image (or of a lock, which has no layers and files)."""

    image: str
    kind: OwnerKind
    name: str
    version: str
    chains: tuple[Chain, ...]
    """From where the project asks to the package, the shortest first."""
    more_chains: bool
    """Whether there are more than those."""
    required_by: tuple[str, ...]
    """The packages that ask for it directly."""
    size: int = 0
    """Bytes of file content."""
    files: int = 0
    layers: tuple[Home, ...] = ()
    largest: tuple[FileSize, ...] = ()
    artifact: str = ""
    """Of a lock: the file it comes from, whose bytes `size` then counts."""


class WhyFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where one file of an image comes from."""

    image: str
    path: str
    kind: str
    """'file', 'symlink' or 'dir'."""
    size: int
    target: str
    """Of a symlink."""
    number: int
    """Its layer: 1 is the lowest."""
    layer: str
    diff_id: DiffID
    owners: tuple[str, ...]
    """The package; of a directory all that have files below it, those with most bytes first."""
    below: tuple[str, ...]
    """Lower layers with another file at this path."""


def why_package(
    contents: Contents, lock: Lock | None, name: str, images: Sequence[tuple[str, set[DiffID]]]
) -> WhyPackage:
    """Explain the package `name` of an image; `images` are the others of the store with their layers.

    Of the same name a Python package wins over one of conda, and that over Debian's; 'debian:NAME' and others say
    which. Raises NotFoundError with the closest names.
    """
    owner = _find(contents, name)
    graph = _graph(lock, contents, owner.kind)
    chains, more = chains_to(graph, owner.name) if graph else ((), False)
    held = [place for one, place in contents.held() if one == owner]
    return WhyPackage(
        image=contents.name,
        kind=owner.kind,
        name=owner.name,
        version=owner.version,
        chains=chains,
        more_chains=more,
        required_by=graph.required_by(owner.name) if graph else (),
        size=sum(place.entry.size for place in held),
        files=len(held),
        layers=tuple(_homes(contents, held, images)),
        largest=_largest(held),
    )


def why_locked(lock: Lock, name: str, *, what: str = "mlbox.lock") -> WhyPackage:
    """Explain the package `name` of a lock, without an image."""
    packages = {package.name: package for package in lock.packages}
    folders = {folder.name: folder for folder in lock.folders}
    debs, conda = {deb.name: deb for deb in lock.debs}, {one.name: one for one in lock.conda}
    if package := packages.get(normalize(name)):
        return _locked("python", package, package.filename, python_graph(lock, ()), what)
    if folder := folders.get(normalize(name)):
        return _locked("python", folder, f"./{folder.path}", python_graph(lock, ()), what)
    if one := conda.get(name):
        return _locked("conda", one, one.filename, conda_graph(lock, ()), what)
    if deb := debs.get(name):
        return _locked("debian", deb, deb.path.rpartition("/")[2], debian_graph(lock, ()), what)
    raise _unknown(name, what, (*packages, *folders, *conda, *debs))


def _locked(
    kind: OwnerKind, one: Package | Folder | CondaPackage | Deb, artifact: str, graph: Graph, what: str
) -> WhyPackage:
    chains, more = chains_to(graph, one.name)
    return WhyPackage(
        image=what,
        kind=kind,
        name=one.name,
        version="" if isinstance(one, Folder) else one.version,
        chains=chains,
        more_chains=more,
        required_by=graph.required_by(one.name),
        size=0 if isinstance(one, Folder) else one.size,
        artifact=artifact,
    )


def why_file(contents: Contents, path: str) -> WhyFile:
    """Say where the file at `path` ('/usr/lib/x.so') is from; links on the way to it are followed."""
    wanted = _resolved(contents, path.strip("/"))
    place = contents.files.get(wanted)
    if place is None:
        name = wanted.rpartition("/")[2]
        same = [one for one in contents.files if one.rpartition("/")[2] == name]
        close = difflib.get_close_matches(wanted, same or contents.files, n=1, cutoff=0.7 if not same else 0.0)
        hint = f"did you mean /{close[0]}?" if close else "a path begins at the root of the image: /usr/bin/python3"
        raise NotFoundError(f"no file /{wanted} in {contents.name}", hint=hint)
    layer = contents.layers[place.layer]
    return WhyFile(
        image=contents.name,
        path=f"/{wanted}",
        kind=place.entry.kind,
        size=place.entry.size,
        target=place.entry.target,
        number=place.layer + 1,
        layer=layer.name,
        diff_id=layer.diff_id,
        owners=_owners(contents, wanted, place),
        below=_below(contents, wanted, place),
    )


def _find(contents: Contents, name: str) -> Owner:
    kind, _, bare = name.rpartition(":")
    owners = {owner for owner, _ in contents.held()}
    others = ("conda", "debian", "image", "project")
    for wanted_kind, wanted in (("python", normalize(bare)), *((other, bare) for other in others)):
        for owner in sorted(owners):
            if kind in ("", wanted_kind) and (owner.kind, owner.name) == (wanted_kind, wanted):
                return owner
    raise _unknown(name, contents.name, [owner.name for owner in sorted(owners)])


def _unknown(name: str, where: str, known: Iterable[str]) -> NotFoundError:
    close = difflib.get_close_matches(name.lower(), sorted(set(known)), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"'mlbox du {where}' lists what is in it"
    return NotFoundError(f"no package {name} in {where}", hint=hint)


def _graph(lock: Lock | None, contents: Contents, kind: OwnerKind) -> Graph | None:
    packages = contents.database.packages
    if kind == "python":
        return python_graph(lock, packages)
    if kind == "conda":
        return conda_graph(lock, packages)
    return debian_graph(lock, packages) if kind == "debian" else None


def _homes(contents: Contents, held: Sequence[Place], images: Sequence[tuple[str, set[DiffID]]]) -> Iterable[Home]:
    sizes: defaultdict[int, list[int]] = defaultdict(list)
    for place in held:
        sizes[place.layer].append(place.entry.size)
    for number in sorted(sizes):
        layer = contents.layers[number]
        yield Home(
            number=number + 1,
            layer=layer.name,
            diff_id=layer.diff_id,
            reason=layer.reason,
            size=sum(sizes[number]),
            files=len(sizes[number]),
            shared_with=tuple(name for name, layers in images if layer.diff_id in layers),
        )


def _largest(held: Sequence[Place]) -> tuple[FileSize, ...]:
    ordered = sorted(held, key=lambda place: (-place.entry.size, place.entry.path))
    return tuple(FileSize(path=f"/{place.entry.path}", size=place.entry.size) for place in ordered[:_LARGEST])


def _resolved(contents: Contents, path: str) -> str:
    """Return `path` with links to folders replaced, so that '/bin/sh' finds usr/bin/sh."""
    done, left, links = "", path.split("/"), 0
    while left:
        part = left.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        here = f"{done}/{part}" if done else part
        place = contents.files.get(here)
        if place is not None and place.entry.kind == "symlink" and left and links < 40:
            links += 1
            done = "" if place.entry.target.startswith("/") else done
            left = place.entry.target.strip("/").split("/") + left
            continue
        done = here
    return done


def _owners(contents: Contents, path: str, place: Place) -> tuple[str, ...]:
    if place.entry.kind != "dir":
        layer = contents.layers[place.layer]
        entries = zip(layer.entries, layer.owners, strict=True)
        return tuple(owner.label for entry, owner in entries if entry.path == path and owner is not None)
    sizes: defaultdict[Owner, int] = defaultdict(int)
    for owner, (entry, _) in contents.held():
        if entry.path.startswith(f"{path}/"):
            sizes[owner] += entry.size
    return tuple(owner.label for owner in sorted(sizes, key=lambda one: (-sizes[one], one)))


def _below(contents: Contents, path: str, place: Place) -> tuple[str, ...]:
    lower = contents.layers[: place.layer]
    return tuple(layer.name for layer in lower if any(e.path == path and e.kind != "dir" for e in layer.entries))
