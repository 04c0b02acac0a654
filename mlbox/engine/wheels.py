"""Wheels that were built from source: shared through registries, and built a second time to be compared."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from mlbox.codec import decode_json
from mlbox.engine.trust.admission import admit_pull
from mlbox.errors import MlboxError, NotFoundError, RegistryError, StoreError, UsageError
from mlbox.events import Listener
from mlbox.oci.image import MANIFEST, Descriptor
from mlbox.oci.reference import Reference, parse_reference
from mlbox.plan.model import BuildPlan, BuiltWheelPiece, LayerPlan
from mlbox.plan.stage import built_pieces
from mlbox.store.built import BuiltWheel
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.engine.building import Workshop
    from mlbox.lock.model import Lock
    from mlbox.registry.client import Registry
    from mlbox.report.treediff import Difference

_MOST = 1000

How = Literal["sent", "there", "other there", "not built", "fetched", "here", "other here", "not there"]


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one wheel on its way to or from a registry."""

    name: str
    version: str
    key: str
    how: How
    """'other': a build of the same inputs made another wheel, and what was there stays."""
    size: int = 0
    sha256: str = ""
    origin: str = ""


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """A package that was built once more, and how that differs from what the store has."""

    name: str
    version: str
    differences: "tuple[Difference, ...]" = ()
    more: bool = False
    """Whether there are more than those."""

    @property
    def equal(self) -> bool:
        """Whether both builds made the same files."""
        return not self.differences


def local(store: Store) -> list[Shared]:
    """Return the wheels that the store knows."""
    return [_shared(wheel, _piece(wheel), "here") for wheel in store.built.all()]


def remote(store: Store, name: str, listener: Listener) -> list[Shared]:
    """Return the wheels that the repository `name` has."""
    from mlbox.registry.wheels import find_wheel, list_keys, read_piece

    registry, target = _open(name, listener)
    found = []
    for key in list_keys(registry, target.repository):
        there = find_wheel(registry, target.repository, key)
        if there is not None:
            piece = _decoded(read_piece(registry, target.repository, there), f"{name}: {key}")
            here: How = "here" if store.built.get(key) else "there"
            found.append(_of(piece, key, here, there.wheel.size, there.wheel.digest))
    return found


def push(store: Store, plan: BuildPlan | None, name: str, listener: Listener) -> list[Shared]:
    """Send the wheels of `plan` (None: all of the store) to the repository `name`.

    A wheel that the repository has of the same inputs stays, even when it is another one. Raises StoreError for a
    wheel that was changed on the disk.
    """
    from mlbox.registry.wheels import find_wheel, push_wheel

    registry, target = _open(name, listener)
    done = []
    with store.using():
        for wheel, piece in _wanted(store, plan):
            if wheel is None:
                done.append(_of(piece, piece.key, "not built"))
                continue
            if not store.artifacts.verify(wheel.sha256):
                raise StoreError(
                    f"{wheel.filename} was changed on the disk", hint="run 'mlbox fsck --deep --repair', then build"
                )
            there = find_wheel(registry, target.repository, wheel.key)
            if there is None:
                push_wheel(store, registry, target.repository, wheel, listener)
            same = there is None or there.wheel.digest == f"sha256:{wheel.sha256}"
            done.append(_shared(wheel, piece, "sent" if there is None else "there" if same else "other there"))
    return done


def pull(store: Store, plan: BuildPlan | None, name: str, listener: Listener) -> list[Shared]:
    """Fetch the wheels of `plan` (None: all that there are) from the repository `name`.

    The next build takes them instead of building: who asks for this trusts whoever may push there. What was built
    here stays.
    """
    from mlbox.registry.wheels import find_wheel, list_keys, pull_wheel

    registry, target = _open(name, listener)
    keys = list_keys(registry, target.repository) if plan is None else (piece.key for piece in built_pieces(plan))
    planned = {piece.key: piece for piece in built_pieces(plan)} if plan else {}
    done = []
    with store.using():
        for key in dict.fromkeys(keys):
            there = find_wheel(registry, target.repository, key)
            if there is None:
                done.append(_of(planned[key], key, "not there"))
                continue
            known = store.built.get(key)
            if known is not None and store.artifacts.has(known.sha256):
                same = there.wheel.digest == f"sha256:{known.sha256}"
                done.append(_shared(known, _piece(known), "here" if same else "other here"))
                continue
            subject = Descriptor(media_type=MANIFEST, digest=there.digest, size=0)
            admit_pull(store, registry, target, [subject])
            wheel = pull_wheel(store, registry, target.repository, there, listener)
            piece = _piece(wheel)
            check_name(wheel, piece)
            store.built.put(wheel)
            done.append(_shared(wheel, piece, "fetched"))
    return done


def rebuild(workshop: "Workshop", lock: "Lock", plan: BuildPlan, names: Sequence[str]) -> list[Rebuilt]:
    """Build the packages `names` of `plan`, which the store has, once more and compare the files.

    Nothing of the store is believed but files that were hashed again. Raises UsageError for a name that is not built
    from source.
    """
    return [_rebuilt(workshop, lock, plan, piece) for piece in _named(plan, names)]


def _rebuilt(workshop: "Workshop", lock: "Lock", plan: BuildPlan, piece: BuiltWheelPiece) -> Rebuilt:
    from mlbox.engine.proving import Basis, Remaker
    from mlbox.paths import Home
    from mlbox.report.treediff import compare_trees

    store, source = workshop.store, piece.source
    layer = LayerPlan(name=source.name, kind="environment", pieces=(piece,))
    workshop.listener.step(f"build {source.name} {source.version} once more")
    with store.using(), store.scratch("rebuild") as folder:
        scratch = Store(Home(folder))
        try:
            basis = Basis(what="the lock", plan=plan, lock=lock, project=workshop.project)
            remaker = Remaker(store, scratch, basis, workshop.listener)
            remaker.take_artifacts([layer])
            made, reasons = remaker.layers({0: layer}, ())
            again, first = scratch.pieces.get(piece.key), store.pieces.get(piece.key)
            if 0 not in made or again is None:
                raise MlboxError(f"{source.name} could not be built once more: {reasons.get(0, 'nobody knows why')}")
            if first is None:
                raise NotFoundError(f"{source.name} {source.version} is not built", hint="'mlbox build' builds it")
            found = compare_trees(first.tree.entries, first.root, again.root)
            differences = list(itertools.islice(found, _MOST + 1))
        finally:
            scratch.close()
    return Rebuilt(
        name=source.name, version=source.version, differences=tuple(differences[:_MOST]), more=len(differences) > _MOST
    )


def _named(plan: BuildPlan, names: Sequence[str]) -> list[BuiltWheelPiece]:
    from packaging.utils import canonicalize_name

    pieces = {piece.source.name: piece for piece in built_pieces(plan)}
    unknown = [name for name in names if canonicalize_name(name) not in pieces]
    if unknown:
        known = ", ".join(pieces) or "nothing"
        raise UsageError(f"{unknown[0]} is not built from source", hint=f"built from source: {known}")
    return [pieces[canonicalize_name(name)] for name in dict.fromkeys(names)]


def _wanted(store: Store, plan: BuildPlan | None) -> Iterator[tuple[BuiltWheel | None, BuiltWheelPiece]]:
    if plan is None:
        yield from ((wheel, _piece(wheel)) for wheel in store.built.all())
        return
    for piece in {piece.key: piece for piece in built_pieces(plan)}.values():
        known = store.built.get(piece.key)
        yield known if known and store.artifacts.has(known.sha256) else None, piece


def _open(name: str, listener: Listener) -> "tuple[Registry, Reference]":
    from mlbox.registry.client import open_registry

    target = parse_reference(name)
    if "@" in name or ":" in name.rpartition("/")[2]:
        raise UsageError(f"{name}: wheels lie in a repository, not under a tag", hint=target.name)
    return open_registry(target.registry, listener=listener), target


def _piece(wheel: BuiltWheel) -> BuiltWheelPiece:
    return _decoded(bytes(wheel.piece), wheel.filename)


def _decoded(data: bytes, what: str) -> BuiltWheelPiece:
    return decode_json(data, BuiltWheelPiece, what=what, error=RegistryError)


def check_name(wheel: BuiltWheel, piece: BuiltWheelPiece) -> None:
    """Raise RegistryError when `wheel`, which came from elsewhere, is called otherwise than a wheel of `piece`."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        fits = parse_wheel_filename(wheel.filename)[0] == piece.source.name
    except InvalidWheelFilename:
        fits = False
    if not fits:
        raise RegistryError(f"{wheel.origin}: {wheel.filename!r} is no wheel of {piece.source.name}")


def _shared(wheel: BuiltWheel, piece: BuiltWheelPiece, how: How) -> Shared:
    return msgspec.structs.replace(_of(piece, wheel.key, how, wheel.size, wheel.sha256), origin=wheel.origin)


def _of(piece: BuiltWheelPiece, key: str, how: How, size: int = 0, sha256: str = "") -> Shared:
    source = piece.source
    return Shared(name=source.name, version=source.version, key=key, how=how, size=size, sha256=sha256)
