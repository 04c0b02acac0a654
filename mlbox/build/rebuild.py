"""Layers that can be made again from a plan: which, and what for.

A plan that came with somebody's image is not trusted. It may say what to unpack, never what the result is called:
the caller compares the diffID, and makes nothing that would have to run code.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import BuildError
from mlbox.oci.digest import DiffID
from mlbox.plan.model import AnyPiece, BuildPlan, DebPiece, EnvPiece, LayerPlan, RootfsPiece, WheelPiece
from mlbox.store.store import Store

_FROM_FILES = DebPiece | RootfsPiece | EnvPiece | WheelPiece
_ELSEWHERE = ("direct", "git", "find-links")
"""Indexes that only the one who locked has."""


def encode_plan(plan: BuildPlan) -> bytes:
    """Return the plan as it travels with an image."""
    return canonical_json(plan)


def decode_plan(data: bytes) -> BuildPlan:
    """Return the plan that travelled with an image; raises BuildError when it is none."""
    return decode_json(data, BuildPlan, what="the image's plan", error=BuildError)


def planned_layers(plan: BuildPlan, diff_ids: tuple[DiffID, ...]) -> dict[DiffID, LayerPlan]:
    """Return which layer of an image the plan says how to make; a plan covers the upper end of an image."""
    if len(plan.layers) > len(diff_ids):
        return {}
    upper = diff_ids[len(diff_ids) - len(plan.layers) :]
    return dict(zip(upper, plan.layers, strict=True))


def can_be_left_out(layer: LayerPlan, plan: BuildPlan) -> bool:
    """Whether everybody can make the layer from files of the index and the mirror alone, without running code."""
    packages = {package.sha256: package for package in plan.packages}
    debs = {deb.sha256 for deb in plan.debs}
    for piece in leaves(layer):
        if isinstance(piece, WheelPiece):
            package = packages.get(piece.sha256)
            if package is None or package.index in _ELSEWHERE or package.url:
                return False
        elif isinstance(piece, DebPiece) and piece.sha256 not in debs:
            return False
    return all(isinstance(piece, _FROM_FILES) for piece in layer.pieces)


def leaves(layer: LayerPlan) -> Iterator[AnyPiece]:
    """Yield the layer's pieces and those that its root file system is made from."""
    for piece in layer.pieces:
        if isinstance(piece, RootfsPiece):
            yield from piece.debs
        yield piece


def made_from(layer: LayerPlan, store: Store) -> Literal["pieces", "artifacts"] | None:
    """Return what of the store the layer can be made from without the network, None when it cannot."""
    if all(store.pieces.has(piece.key) for piece in layer.pieces):
        return "pieces"
    if not all(isinstance(piece, _FROM_FILES) or store.pieces.has(piece.key) for piece in layer.pieces):
        return None
    return None if missing_files(layer, store) else "artifacts"


def missing_files(layer: LayerPlan, store: Store) -> frozenset[str]:
    """Return the sha256 of the files that making the layer would have to fetch."""
    files = (piece for piece in leaves(layer) if isinstance(piece, WheelPiece | DebPiece))
    return frozenset(
        piece.sha256
        for piece in files
        if not store.pieces.has(piece.key) and not (piece.sha256 and store.artifacts.has(piece.sha256))
    )


def file_sizes(plan: BuildPlan) -> dict[str, int]:
    """Return the sizes (bytes) of the plan's files, by sha256."""
    return {one.sha256: one.size for one in (*plan.debs, *plan.packages)}


def part_of(plan: BuildPlan, layers: tuple[LayerPlan, ...]) -> BuildPlan:
    """Return the plan of those layers alone."""
    return msgspec.structs.replace(plan, layers=layers, build_packages=())
