"""Layers that can be made again from a plan: which, and what for.

A plan that came with somebody's image is not trusted. It may say what to unpack, never what the result is called:
the caller compares the diffID, and makes nothing that would have to run code.
"""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import BuildError
from mlbox.lock.model import CHANNEL, FOLDER, PACKAGE_FILE
from mlbox.oci.digest import DiffID
from mlbox.oci.layer import RULES
from mlbox.plan.model import (
    HOME,
    AnyPiece,
    BuildPlan,
    CondaEnvPiece,
    CondaPiece,
    DebPiece,
    EnvPiece,
    LayerPlan,
    RootfsPiece,
    WheelPiece,
)
from mlbox.store.store import Store

_ELSEWHERE = ("direct", "git", "find-links", "torch")
"""Indexes that only the one who locked has, and one whose addresses a resolver must be asked for."""
_SHORT = re.compile(r"[0-9]{1,2}\.[0-9]{1,3}")
_FULL = re.compile(r"[0-9]{1,2}(\.[0-9]{1,3}){1,2}[0-9a-z+]{0,20}")
_WORD = re.compile(r"[a-z0-9-]{1,40}")
_TEXT = re.compile(r"[^\0-\x1f\x7f/]{1,255}")
_HEX = re.compile(r"[0-9a-f]{64}")


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
    debs = {deb.sha256 for deb in plan.debs if not deb.source}
    for piece in leaves(layer):
        if isinstance(piece, WheelPiece):
            package = packages.get(piece.sha256)
            if package is None or (package.name, package.filename) != (piece.name, piece.filename):
                return False
            if package.index in _ELSEWHERE or package.url:
                return False
        elif isinstance(piece, DebPiece) and piece.sha256 not in debs:
            return False
        elif isinstance(piece, CondaPiece):
            return False  # where its channel is, not everybody's configuration says
    return all(is_harmless(piece) for piece in layer.pieces)


def is_harmless(piece: AnyPiece) -> bool:
    """Whether the piece is unpacked from files without running code, and the words of a stranger can become paths."""
    if piece.rules != RULES or not 0 <= piece.epoch < 8**11:
        return False
    match piece:
        case WheelPiece():
            words = (piece.name, piece.version, piece.filename)
            return _is_file(piece.sha256, *words) and _SHORT.fullmatch(piece.python) is not None
        case DebPiece():
            return _is_file(piece.sha256, piece.name, piece.version, piece.arch)
        case RootfsPiece():
            return _WORD.fullmatch(piece.suite) is not None and all(map(is_harmless, piece.debs))
        case CondaPiece():
            known = PACKAGE_FILE.fullmatch(piece.filename) and CHANNEL.fullmatch(piece.channel)
            fits = not piece.python or _SHORT.fullmatch(piece.python)
            return bool(known and fits) and _is_file(piece.sha256, piece.name, piece.version, piece.build, piece.subdir)
        case CondaEnvPiece():
            return True
        case EnvPiece():
            home = FOLDER.fullmatch(piece.home or HOME)
            return bool(home and _SHORT.fullmatch(piece.python) and _FULL.fullmatch(piece.python_full))
        case _:
            return False


def _is_file(sha256: str, *words: str) -> bool:
    return _HEX.fullmatch(sha256) is not None and all(_TEXT.fullmatch(word) for word in words)


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
    if not all(is_harmless(piece) or store.pieces.has(piece.key) for piece in layer.pieces):
        return None
    return None if missing_files(layer, store) else "artifacts"


def missing_files(layer: LayerPlan, store: Store) -> frozenset[str]:
    """Return the sha256 of the files that making the layer would have to fetch."""
    files = (piece for piece in leaves(layer) if isinstance(piece, WheelPiece | DebPiece | CondaPiece))
    return frozenset(
        piece.sha256 for piece in files if not store.pieces.has(piece.key) and not store.artifacts.has(piece.sha256)
    )


def file_sizes(plan: BuildPlan) -> dict[str, int]:
    """Return the sizes (bytes) of the plan's files, by sha256."""
    sizes = {deb.sha256: deb.size for deb in plan.debs} | {one.sha256: one.size for one in plan.packages}
    return sizes | {one.sha256: one.size for one in plan.conda or ()}


def part_of(plan: BuildPlan, layers: tuple[LayerPlan, ...]) -> BuildPlan:
    """Return the plan of those layers alone."""
    return msgspec.structs.replace(plan, layers=layers, build_packages=())
