"""What pip refuses once one requirement has a hash: then all must be exact, and nobody may bring in more."""

from collections.abc import Iterable

from mlbox.errors import ResolveError
from mlbox.http import redact_text
from mlbox.lock.python.asked import OWN_PIP, Asked
from mlbox.lock.python.model import Pinned
from mlbox.project.model import Project

_HINT = (
    "name every package with == and its hashes ('uv pip compile --generate-hashes' does), or drop the hashes:"
    " mlbox.lock holds all of them anyway"
)


def require_hashes(project: Project, asked: Asked) -> bool:
    """Whether pip would require hashes: it is said, or one requirement has some."""
    return project.foreign is None and project.conda is None and (project.index.require_hashes or bool(asked.hashes))


def check_exact(asked: Asked) -> None:
    """Refuse requirements that leave something open, before anything is resolved."""
    loose = [redact_text(line) for line in asked.loose]
    if loose:
        raise ResolveError(
            f"the requirements have hashes, so all must be exact, and these are not: {', '.join(loose)[:500]}",
            hint=_HINT,
        )


def check_closed(asked: Asked, pins: Iterable[Pinned]) -> None:
    """Refuse packages for which the requirements name no hash: those that others ask for too."""
    own = {"pip"} if asked.origins.get("pip") == (OWN_PIP,) else set()
    missing = sorted(pin.name for pin in pins if pin.kind == "index" and pin.name not in {*asked.hashes, *own})
    if missing:
        raise ResolveError(f"the requirements have hashes, but no hash for {', '.join(missing)} (sha256)", hint=_HINT)
