"""Whether the lock beside a project is that project's: what a build asks that has nothing to resolve."""

from pathlib import Path

import msgspec

from mlbox.errors import LockError
from mlbox.lock.file import FILENAME
from mlbox.lock.model import Arch, Lock
from mlbox.project.discover import inputs_digest
from mlbox.project.model import Project


class LockOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `mlbox lock` was asked beyond what stands in the project."""

    arch: Arch | None = None
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    found_packages: tuple[str, ...] = ()
    """Debian packages that a build found missing, besides those that the previous lock has for that reason."""
    epoch: int | None = None
    """From SOURCE_DATE_EPOCH; None keeps the previous lock's or the default."""


def lock_path(root: Path) -> Path:
    """Return where the lock of the project at `root` lies."""
    return root / FILENAME


def check_fresh(lock: Lock, project: Project) -> None:
    """Raise LockError when `lock` was made from other inputs than the project has now."""
    if lock.inputs != inputs_digest(project):
        wanted, found = (
            one or (single,)
            for one, single in (
                (project.settings.accelerators, project.settings.accelerator),
                (lock.accelerators, lock.target.accelerator),
            )
        )
        other = f"it is for {', '.join(found)}, and the project wants {', '.join(wanted)}"
        raise LockError(
            f"{FILENAME} is stale: "
            + (other if wanted != found else "the project's requirements or settings changed after it was made"),
            hint="'mlbox lock' updates it, 'mlbox lock --diff' shows what would move, 'mlbox build --relock' does both",
        )
