"""A whole store: everything mlbox keeps in one home."""

from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mlbox.files import disk_errors, locked
from mlbox.paths import Home
from mlbox.store.artifacts import ArtifactStore
from mlbox.store.built import BuiltWheels
from mlbox.store.content import ContentStore
from mlbox.store.db import Database
from mlbox.store.images import ImageStore
from mlbox.store.layers import LayerStore
from mlbox.store.pieces import PieceStore
from mlbox.store.publish import temporary_folder
from mlbox.store.remotes import Remotes

if TYPE_CHECKING:
    from mlbox.store.referrers import Referrers


class Store:
    """The store at `home`. Nothing is opened or made before it is used."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.db = Database(home.db)
        self.content = ContentStore(home)
        self.artifacts = ArtifactStore(home)
        self.pieces = PieceStore(home)
        self.built = BuiltWheels(home)
        self.layers = LayerStore(home, self.db)
        self.remotes = Remotes(self.db)
        self.images = ImageStore(self.content, self.db, self.remotes)

    @cached_property
    def referrers(self) -> "Referrers":
        """The artifacts about the images; most commands never look at them."""
        from mlbox.store.referrers import Referrers

        return Referrers(self.content, self.db)

    def using(self) -> AbstractContextManager[bool]:
        """Keep prune away: hold it from the first look at the store until the result is named or a container."""
        return locked(self._lock(), shared=True)

    def alone(self) -> AbstractContextManager[bool]:
        """Keep `using` away; yields False when somebody is using the store now."""
        return locked(self._lock(), blocking=False)

    def scratch(self, label: str) -> AbstractContextManager[Path]:
        """Yield an empty folder that is removed at the end, or by fsck when this process is killed."""
        return temporary_folder(self.home.tmp, label)

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def _lock(self) -> Path:
        path = self.home.root / "store.lock"
        with disk_errors("opening the store"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return path
