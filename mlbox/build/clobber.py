"""Files that two conda packages both have, which conda tells as ClobberWarning. Equal ones do no harm."""

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlbox.oci.layer import Entry
from mlbox.plan.model import PREFIX
from mlbox.store.pieces import StoredPiece
from mlbox.store.tree import below


class Clobber(NamedTuple):
    """Two packages that want different files at the same paths; the later one has its own there."""

    earlier: str
    later: str
    paths: tuple[str, ...]
    """In the environment: 'lib/libjpeg.so'."""

    @property
    def message(self) -> str:
        """Return what a user has to know."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return (
            f"conda packages {self.earlier} and {self.later} have different files at {self.paths[0]}{more}; "
            f"the image has those of {self.later}"
        )


def clobbers(packages: Sequence[StoredPiece]) -> list[Clobber]:
    """Return which of the unpacked `packages`, in the order they are laid over one another, replace files of which."""
    owners: dict[str, tuple[StoredPiece, Entry]] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for package in packages:
        for entry in package.tree.entries:
            if entry.kind == "dir":
                continue
            owner = owners.get(entry.path)
            owners[entry.path] = (package, entry)
            if owner and not _same(owner, (package, entry)):
                found.setdefault((owner[0].label, package.label), []).append(entry.path.removeprefix(f"{PREFIX}/"))
    return [Clobber(earlier, later, tuple(sorted(paths))) for (earlier, later), paths in sorted(found.items())]


def _same(*owned: tuple[StoredPiece, Entry]) -> bool:
    one, other = (entry for _, entry in owned)
    if (one.kind, one.mode, one.size, one.target) != (other.kind, other.mode, other.size, other.target):
        return False
    files = [Path(below(piece.root)(entry)) for piece, entry in owned]
    return one.kind == "symlink" or filecmp.cmp(files[0], files[1], shallow=False)
