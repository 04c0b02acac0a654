"""What explanations of failures need to know of a container's image: its lock and its files."""

import re
from functools import cached_property

from mlbox.engine.checking import check, needs_of
from mlbox.gpu.failures import failure_table
from mlbox.gpu.model import Roots
from mlbox.lock.file import decode_lock
from mlbox.lock.model import Lock
from mlbox.oci.digest import Digest
from mlbox.runtime.record import Record
from mlbox.store.store import Store

_INSTALLED = re.compile(r"(?:^|/)(?:site-packages|dist-packages|python3[0-9.]*)/")


class ImageFacts:
    """The image of the container that `record` describes; without one nothing is known."""

    def __init__(self, store: Store | None, record: Record | None, roots: Roots) -> None:
        self._image = (store, Digest(record.image_digest)) if store and record else None
        self._roots = roots

    @cached_property
    def lock(self) -> Lock | None:
        """The lock it was built from."""
        data = self._image[0].referrers.lock_of(self._image[1]) if self._image else None
        return decode_lock(data) if data else None

    @cached_property
    def unfit(self) -> tuple[str, str]:
        """Why it does not run on any of this host's GPUs, and what would."""
        if self._image is None:
            return "", ""
        found = [one.fit for one in check(needs_of(*self._image), roots=self._roots)]
        if not found or any(fit.verdict != "refused" for fit in found):
            return "", ""
        return "; ".join(found[0].reasons), found[0].hint

    def module_locked(self, module: str) -> str:
        """Whether the lock has the package of a Python module, or the image files of it; '' without a lock."""
        if self.lock is None:
            return ""
        names = {_normal(package.name) for package in self.lock.packages}
        wanted = {_normal(module), _normal(failure_table().modules.get(module, module))}
        return "yes" if names & wanted or self._files(module) else "no"

    def module_folder(self, module: str) -> str:
        """Where the project itself has the module: one place, which no package was installed to; '' otherwise."""
        found = [path for path in self._files(module) if not _INSTALLED.search(path)]
        return "/" + found[0].rpartition("/")[0] if len(found) == 1 else ""

    def _files(self, module: str) -> list[str]:
        """Return what could be the module, from the folder that would have to be on Python's path."""
        if self._image is None:
            return []
        store, digest = self._image
        found = set()
        for diff_id in store.images.load(digest).config.rootfs.diff_ids:
            for entry in store.layers.entries(diff_id):
                if entry.path.endswith(f"/{module}/__init__.py"):
                    found.add(entry.path.removesuffix("/__init__.py"))
                elif entry.path.endswith(f"/{module}.py") and entry.kind == "file":
                    found.add(entry.path)
        return sorted(found)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
