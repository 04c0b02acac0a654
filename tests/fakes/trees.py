"""Pieces, layers and images of a few files, made in a store without unpacking anything."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mlbox.oci.image import ContainerConfig, Image, ImageConfig, RootFS, image_of
from mlbox.oci.layer import Entry
from mlbox.store.layers import Layer
from mlbox.store.pieces import StoredPiece
from mlbox.store.store import Store
from mlbox.store.tree import Tree, TreeWriter, below, diff_id_of

Files = Mapping[str, bytes | str | int]
"""By path: bytes are a file, a string is a symlink's target, a number is a directory's mode."""


def key(text: str) -> str:
    """Return a key for `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


def write(root: Path, files: Files) -> Tree:
    """Write `files` below `root`."""
    writer = TreeWriter(root, "fake")
    for path, what in files.items():
        if isinstance(what, bytes):
            writer.file(path, [what], 0o755 if path.startswith("bin/") else 0o644)
        elif isinstance(what, str):
            writer.symlink(path, what)
        else:
            writer.directory(path, what)
    return writer.finish()


def hashed(root: Path, files: Files) -> Tree:
    """Write `files` below `root`; the tree knows its digest."""
    entries: tuple[Entry, ...] = write(root, files).entries
    return Tree(entries=entries, diff_id=diff_id_of(entries, below(root)))


def make_piece(store: Store, name: str, files: Files) -> StoredPiece:
    """Return a piece of `files`."""
    return store.pieces.make(key(name), name, lambda root: hashed(root, files))


def make_layer(store: Store, name: str, files: Files) -> Layer:
    """Return a layer of one piece of `files`."""
    return store.layers.assemble(key(f"layer {name}"), name, [make_piece(store, name, files)])


def make_image(store: Store, *layers: Layer, label: str = "") -> Image:
    """Return an image of `layers`; `label` makes it another one."""
    config = ImageConfig(
        architecture="amd64",
        os="linux",
        config=ContainerConfig(cmd=("/bin/true",), labels={"label": label} if label else {}),
        rootfs=RootFS(diff_ids=tuple(layer.diff_id for layer in layers)),
    )
    image = image_of(config, tuple(layer.descriptor for layer in layers))
    store.images.add(image)
    return image
