"""What commands on images share: the store they work on, and how an image is named."""

from typing import TYPE_CHECKING, Annotated

from mlbox.cli.words import Argument

if TYPE_CHECKING:
    from mlbox.store.store import Store

ImageName = Annotated[str, Argument(metavar="IMAGE", help="Name, digest, or the beginning of one.")]


def default_store() -> "Store":
    """Return the store of MLBOX_HOME; its modules are imported when a command asks for it."""
    from mlbox.paths import Home
    from mlbox.store.store import Store

    return Store(Home.default())


def meant(store: "Store", name: str) -> str:
    """Return the name of the image that `name` means on this host; stderr has the choice when there was one."""
    from mlbox.cli.progress import listener
    from mlbox.engine import variants

    with listener() as talk:
        return variants.meant(store, name, talk)
