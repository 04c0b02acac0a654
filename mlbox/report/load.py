"""Images of a store with what explains them."""

from mlbox.lock.file import decode_lock
from mlbox.oci.digest import DiffID, Digest
from mlbox.report.contents import contents_of
from mlbox.report.diff import Side
from mlbox.store.store import Store


def load_side(store: Store, name: str) -> Side:
    """Return the image `name` of the store, what it holds, and the lock it was built from where there is one."""
    image = store.images.load(store.images.resolve(name))
    data = store.referrers.lock_of(image.digest)
    return Side(
        image=image,
        contents=contents_of(store, image, name),
        lock=decode_lock(data, what=f"the lock of {name}") if data is not None else None,
        lock_bytes=data or b"",
    )


def other_images(store: Store, digest: Digest) -> list[tuple[str, set[DiffID]]]:
    """Return the other images of the store, by the first of their names, with the layers they stand on."""
    return [
        (row.names[0] if row.names else str(row.digest), set(store.images.load(row.digest).config.rootfs.diff_ids))
        for row in store.images.list()
        if row.digest != digest
    ]
