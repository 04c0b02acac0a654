"""Wheels that were built from source: by the key of the piece they are, which hashes all that went into them."""

import hashlib
from collections.abc import Iterator

import msgspec

from mlbox.codec import canonical_json, decode_json
from mlbox.errors import StoreError
from mlbox.files import disk_errors, write_atomic
from mlbox.paths import Home
from mlbox.store.saved import saved_path


class BuiltWheel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wheel that a build made, and where."""

    piece: msgspec.Raw
    """The piece as canonical JSON: its sha256 is the key."""
    filename: str
    sha256: str
    """Of the wheel, which is among the artifacts."""
    size: int
    origin: str = ""
    """The artifact of a registry that it was pulled from ('host/name@sha256:…'); empty when it was built here."""

    @property
    def key(self) -> str:
        """The piece's key."""
        return hashlib.sha256(bytes(self.piece)).hexdigest()


class BuiltWheels:
    """What is known of the wheels that were built, or pulled on demand."""

    def __init__(self, home: Home) -> None:
        self._root = home.metadata / "built"

    def get(self, key: str) -> BuiltWheel | None:
        """Return the wheel of that piece, None when it is not known."""
        path = saved_path(self._root, key)
        try:
            found = decode_json(path.read_bytes(), BuiltWheel, what=str(path), error=StoreError)
        except FileNotFoundError:
            return None
        if found.key != key:
            raise StoreError(f"{path}: is of another piece", hint="remove it; the wheel is built again")
        return found

    def put(self, wheel: BuiltWheel) -> None:
        """Remember `wheel`; what was known of its piece gives way."""
        with disk_errors("remembering a built wheel"):
            write_atomic(saved_path(self._root, wheel.key), canonical_json(wheel))

    def delete(self, key: str) -> None:
        """Forget the wheel of that piece; its file is an artifact like others."""
        saved_path(self._root, key).unlink(missing_ok=True)

    def all(self) -> Iterator[BuiltWheel]:
        """Yield every wheel that is known, by key."""
        for path in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            if not path.name.startswith(".") and (found := self.get(path.name)):
                yield found


def files_of(wheels: BuiltWheels) -> frozenset[str]:
    """Return the sha256 of the artifacts that are built wheels: no index can give them back."""
    return frozenset(wheel.sha256 for wheel in wheels.all())
