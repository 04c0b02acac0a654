"""Downloaded files (wheels, .debs, sdists) by sha256, shared by all projects."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from mlbox.errors import StoreError
from mlbox.files import chunks, disk_errors
from mlbox.paths import Home
from mlbox.store.publish import publish_file, temporary_file, withdraw, working_on

_HEX = re.compile(r"[0-9a-f]{64}")
_PARTIAL = ".partial"


class ArtifactStore:
    """The artifacts/ folder of a store."""

    def __init__(self, home: Home) -> None:
        self._root = home.artifacts
        self._tmp = home.tmp

    def path(self, sha256: str) -> Path:
        """Return where the artifact lies, whether it is there or not."""
        if not _HEX.fullmatch(sha256):
            raise StoreError(f"not a sha256: {sha256[:100]!r}")
        return self._root / sha256

    def has(self, sha256: str) -> bool:
        """Whether the artifact is there, whole."""
        return self.path(sha256).is_file()

    def partial(self, sha256: str) -> Path:
        """Return where its download is collected; bytes of an earlier try may lie there. Use under `fetching`."""
        self._root.mkdir(parents=True, exist_ok=True)
        return self.path(sha256).with_suffix(_PARTIAL)

    def fetching(self, sha256: str) -> AbstractContextManager[None]:
        """Let one process at a time fetch this artifact; look with `has` again once inside."""
        return working_on(self._tmp, f"artifact-{self.path(sha256).name}")

    def publish(self, partial: Path, sha256: str, *, checked: bool = False) -> Path:
        """Check `partial`, unless the caller just has, and move it to its place.

        One with another hash is removed and raises StoreError.
        """
        target = self.path(sha256)
        with disk_errors(f"storing artifact {sha256}"), partial.open("rb+") as file:
            got = sha256 if checked else _sha256(partial)
            if got != sha256:
                partial.unlink()
                raise StoreError(f"a downloaded file has sha256 {got}, not {sha256}")
            publish_file(partial, file, target)
        return target

    def add_file(self, path: Path) -> str:
        """Copy the file at `path` into the store and return its sha256."""
        hasher = hashlib.sha256()
        with (
            disk_errors(f"storing {path.name}"),
            path.open("rb") as source,
            temporary_file(self._tmp, "artifact") as (temporary, file),
        ):
            for chunk in chunks(source):
                hasher.update(chunk)
                file.write(chunk)
            publish_file(temporary, file, self.path(hasher.hexdigest()))
        return hasher.hexdigest()

    def verify(self, sha256: str) -> bool:
        """Whether the file still has its hash."""
        return _sha256(self.path(sha256)) == sha256

    def delete(self, sha256: str) -> None:
        """Remove the artifact; a missing one is fine."""
        withdraw(self._tmp, self.path(sha256))

    def hashes(self) -> Iterator[str]:
        """Yield the sha256 of every whole artifact."""
        yield from (path.name for path in self._files() if path.suffix != _PARTIAL)

    def partials(self) -> Iterator[Path]:
        """Yield the downloads that are not finished."""
        yield from (path for path in self._files() if path.suffix == _PARTIAL)

    def _files(self) -> list[Path]:
        return sorted(self._root.iterdir()) if self._root.is_dir() else []


def _sha256(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
