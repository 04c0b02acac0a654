"""Layers made again from the files of their packages, by a plan that came in a bundle: no network, no code that runs.

The plan may be hostile. It only says *how* to make a layer; the layer counts when its diffID is the one wanted.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlbox.build.conda import fill_conda_env, unpack_conda
from mlbox.build.deb import unpack_deb
from mlbox.build.env import fill_env
from mlbox.build.rebuild import is_harmless, leaves
from mlbox.build.rootfs import fill_rootfs
from mlbox.build.wheel import unpack_wheel
from mlbox.errors import StoreError
from mlbox.oci.digest import DiffID
from mlbox.plan.label import label
from mlbox.plan.model import (
    AnyPiece,
    BytecodePiece,
    CondaEnvPiece,
    CondaPiece,
    DebPiece,
    EnvPiece,
    LayerPlan,
    RootfsPiece,
    WheelPiece,
)
from mlbox.registry.bundle_have import Have
from mlbox.store.pieces import StoredPiece
from mlbox.store.store import Store
from mlbox.store.tree import Tree

_FILE = WheelPiece | DebPiece | CondaPiece


def needed_for(layer: LayerPlan, have: Have) -> Have | None:
    """Return what of `have` a store uses to make `layer`.

    None when it cannot: something is missing, or would have to be made by running code.
    """
    pieces: set[str] = set()
    files: set[str] = set()
    for piece in layer.pieces:
        unpacked = _files_of(piece)
        if is_harmless(piece) and unpacked <= have.artifacts:
            files |= unpacked
        elif _is_pure(piece) and piece.key in have.pieces:
            pieces.add(piece.key)
        else:
            return None
    return Have(artifacts=frozenset(files), pieces=frozenset(pieces))


def make_layer(store: Store, layer: LayerPlan, diff_id: DiffID, name: str) -> None:
    """Make `layer` from pieces and files of the store.

    Raises StoreError when something is missing, or when what comes out is another layer.
    """
    have = Have(
        artifacts=frozenset(sha256 for piece in leaves(layer) for sha256 in _files_of(piece) if _has(store, sha256)),
        pieces=frozenset(piece.key for piece in layer.pieces if store.pieces.has(piece.key)),
    )
    if needed_for(layer, have) is None:
        raise StoreError(f"layer {name} cannot be made from what is in the store", hint=_WHOLE)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda piece: _leaf(store, piece), leaves(layer)))
    made = store.layers.assemble(layer.key, name, [_piece(store, piece) for piece in layer.pieces])
    if made.diff_id != diff_id:
        raise StoreError(f"layer {name} becomes {made.diff_id} and not {diff_id} when it is made here", hint=_WHOLE)


_WHOLE = "have the bundle made again without --have and --since, so that the layer is in it"


def _has(store: Store, sha256: str) -> bool:
    return len(sha256) == 64 and store.artifacts.has(sha256)


def _files_of(piece: AnyPiece) -> set[str]:
    """Return the files (sha256) that the piece is unpacked from."""
    match piece:
        case WheelPiece() | DebPiece() | CondaPiece():
            return {piece.sha256}
        case RootfsPiece():
            return {deb.sha256 for deb in piece.debs}
        case _:
            return set()


def _is_pure(piece: AnyPiece) -> bool:
    """Whether the piece is the same on every machine; what was built in a container may differ."""
    if isinstance(piece, BytecodePiece):
        return isinstance(piece.of, _FILE)
    return isinstance(piece, _FILE | RootfsPiece | EnvPiece | CondaEnvPiece)


def _leaf(store: Store, piece: AnyPiece) -> None:
    if isinstance(piece, _FILE) and _has(store, piece.sha256):
        _piece(store, piece)


def _piece(store: Store, piece: AnyPiece) -> StoredPiece:
    found = store.pieces.get(piece.key)
    return found or store.pieces.make(piece.key, label(piece), _filler(store, piece))


def _filler(store: Store, piece: AnyPiece) -> Callable[[Path], Tree]:
    match piece:
        case WheelPiece():
            return lambda root: unpack_wheel(store.artifacts.path(piece.sha256), root, piece)
        case DebPiece():
            return lambda root: unpack_deb(store.artifacts.path(piece.sha256), root, epoch=piece.epoch)
        case CondaPiece():
            return lambda root: unpack_conda(store.artifacts.path(piece.sha256), root, piece)
        case CondaEnvPiece():
            return lambda root: fill_conda_env(root, piece)
        case EnvPiece():
            return lambda root: fill_env(root, piece)
        case RootfsPiece():
            return lambda root: _rootfs(store, piece, root)
        case _:
            raise StoreError(f"{label(piece)} cannot be made without running code", hint=_WHOLE)


def _rootfs(store: Store, piece: RootfsPiece, root: Path) -> Tree:
    trees = [(stored.root, stored.tree) for stored in (_piece(store, deb) for deb in piece.debs)]
    return fill_rootfs(root, trees, suite=piece.suite, arch=piece.arch, epoch=piece.epoch)
