"""What an image holds: its layers' files, and which package each byte belongs to.

Ownership is read from the image itself (dpkg's lists, RECORD files) and from its layers' names, so it is the same on
every machine and works for images that mlbox did not make. An attached plan only adds what layers are called and why.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import msgspec

from mlbox.codec import decode_json
from mlbox.errors import StoreError
from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import Image
from mlbox.oci.layer import Entry
from mlbox.plan.model import BuildPlan, BuiltWheelPiece, LayerPlan, WheelPiece
from mlbox.plan.run import run_piece, title
from mlbox.report.installed import Database, Owner, read_database
from mlbox.store.store import Store
from mlbox.store.view import DOCUMENT_LIMIT, Place, effective, read_file

_HISTORY = "mlbox: "


class LayerContents(msgspec.Struct, frozen=True, kw_only=True):
    """One layer and whose its files are."""

    name: str
    kind: str
    """As in the plan ('base', 'environment', ...); empty for a layer that mlbox did not make."""
    reason: str
    diff_id: DiffID
    size: int
    """Bytes of its tar."""
    entries: tuple[Entry, ...]
    owners: tuple[Owner | None, ...]
    """Of each entry; None for directories, which belong to everybody, and for whiteouts."""

    @property
    def content(self) -> int:
        """Bytes of file content."""
        return sum(entry.size for entry in self.entries)


class Contents(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """An image with everything in it."""

    name: str
    """As it was asked for."""
    digest: Digest
    layers: tuple[LayerContents, ...]
    database: Database

    @cached_property
    def files(self) -> dict[str, Place]:
        """What a container sees, by path without leading slash: upper layers hide what lies below them."""
        return effective([layer.entries for layer in self.layers])

    def held(self) -> Iterator[tuple[Owner, Place]]:
        """Yield every file and link of every layer, also those that a higher layer hides."""
        for number, layer in enumerate(self.layers):
            for entry, owner in zip(layer.entries, layer.owners, strict=True):
                if owner is not None:
                    yield owner, Place(entry, number)


def contents_of(store: Store, image: Image, name: str = "") -> Contents:
    """Return what `image` holds; raises StoreError when one of its layers is not in the store."""
    diff_ids = image.config.rootfs.diff_ids
    trees = [store.layers.entries(diff_id) for diff_id in diff_ids]
    files = effective(trees)
    aliases = {path: place.entry.target for path, place in files.items() if _is_alias(place.entry)}
    database = read_database(files, lambda path: _read(store, diff_ids, files, path), aliases)
    plans = layer_plans(store, image)
    layers = tuple(_layer(image, number, entries, database, plans[number]) for number, entries in enumerate(trees))
    return Contents(name=name or image.digest, digest=image.digest, layers=layers, database=database)


def layer_plans(store: Store, image: Image) -> tuple[LayerPlan | None, ...]:
    """Return the plan of each layer of an image, None for those of a base that was pulled or without a plan."""
    count = len(image.config.rootfs.diff_ids)
    data = store.referrers.plan_of(image.digest)
    layers = decode_json(data, BuildPlan, what="the image's plan", error=StoreError).layers if data else ()
    # A plan covers the upper end of an image.
    return (*(None for _ in range(count - len(layers))), *layers) if len(layers) <= count else (None,) * count


def _read(store: Store, diff_ids: Sequence[DiffID], files: dict[str, Place], path: str) -> bytes:
    place = files.get(path)
    if place is None or place.entry.kind not in ("file", "link") or place.entry.size > DOCUMENT_LIMIT:
        return b""
    return read_file(store.layers, diff_ids[place.layer], place.entry)


def _is_alias(entry: Entry) -> bool:
    return entry.kind == "symlink" and "/" not in entry.path and entry.target.startswith("usr/")


def _layer(
    image: Image, number: int, entries: tuple[Entry, ...], database: Database, plan: LayerPlan | None
) -> LayerContents:
    name = plan.name if plan else _history_name(image, number)
    rest = _rest(name, plan)
    workdir = image.config.config.working_dir.strip("/")
    # What a command made there is its own.
    own = f"{workdir}/" if workdir and not (plan and run_piece(plan)) else "\0"
    project = Owner("project", "project")
    owners = tuple(
        None if entry.kind == "dir" else database.owner(entry.path) or (project if entry.path.startswith(own) else rest)
        for entry in entries
    )
    return LayerContents(
        name=name,
        kind=plan.kind if plan else "",
        reason=plan.reason if plan else "",
        diff_id=image.config.rootfs.diff_ids[number],
        size=image.manifest.layers[number].size,
        entries=entries,
        owners=owners,
    )


def _history_name(image: Image, number: int) -> str:
    made = [step.created_by for step in image.config.history if not step.empty_layer]
    text = made[number] if number < len(made) else ""
    return text.removeprefix(_HISTORY) if text.startswith(_HISTORY) else f"layer {number + 1}"


def _rest(layer: str, plan: LayerPlan | None) -> Owner:
    """Return who owns what no database of the image speaks of."""
    if plan is not None:
        if plan.kind == "project":
            return Owner("project", "project")
        if (command := run_piece(plan)) is not None:
            return Owner("image", f"{layer}, {title(command.command)}")
        wheels = [piece for piece in plan.pieces if isinstance(piece, WheelPiece | BuiltWheelPiece)]
        if len(wheels) == 1:
            one = wheels[0].source if isinstance(wheels[0], BuiltWheelPiece) else wheels[0]
            return Owner("python", one.name, one.version)
    return Owner("image", layer)
