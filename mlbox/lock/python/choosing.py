"""From what a resolver answers to what the lock says: one file of each package, its size, where it is."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from mlbox.errors import LockError, ResolveError
from mlbox.files import write_atomic
from mlbox.http import Http, file_path, redact, without_credentials
from mlbox.lock.model import Package, Target
from mlbox.lock.python.asked import Asked
from mlbox.lock.python.model import File, Pinned, Question
from mlbox.lock.python.target import best_file
from mlbox.paths import Home

# Parameters with which storage services sign addresses, and that stand for a password elsewhere.
_SECRET = re.compile(
    r"(?:^|&)([^=&]*(?:token|signature|secret|password|api[-_]?key|credential)[^=&]*|sig|key)=", re.IGNORECASE
)
_ASKED_AT_ONCE = 16  # mirrors have been seen that let more connections wait for seconds


class Choice(NamedTuple):
    """A resolved package and its file, None for a checkout."""

    pinned: Pinned
    file: File | None


def choose(pins: Sequence[Pinned], question: Question, asked: Asked) -> list[Choice]:
    """Pick the one file of each package; all problems in one error."""
    chosen, problems = [], []
    for pinned in sorted(pins, key=lambda pinned: pinned.name):
        if pinned.kind == "directory":
            problems.append(f"{pinned.name}: {pinned.url} is a folder, and only the project itself can be one")
            continue
        if pinned.kind == "vcs":
            chosen.append(Choice(pinned, None))
            continue
        allowed = asked.hashes.get(pinned.name)
        files = tuple(file for file in pinned.files if not allowed or file.sha256 in allowed)
        file = best_file(files, question.target)
        if file is None:
            problems.append(_no_file(pinned, bool(allowed), question.target))
        else:
            chosen.append(Choice(pinned, file))
    if problems:
        folders = any(pinned.kind == "directory" for pinned in pins)
        hint = "build a wheel of it and name the wheel, or publish it on an index"
        other = "ask for another version, or another Python in [tool.mlbox]"
        raise ResolveError("; ".join(problems), hint=hint if folders else other)
    return chosen


def _no_file(pinned: Pinned, hashed: bool, target: Target) -> str:
    where = f"Python {target.python} on {target.arch} with glibc {target.glibc}"
    if hashed:
        return f"{pinned.name} {pinned.version}: no file for {where} has one of the hashes that the requirements name"
    return f"{pinned.name} {pinned.version}: no wheel for {where}, and no sdist"


def packages_of(
    chosen: Sequence[Choice], asked: Asked, root: Path, known: Sequence[Package], http: Http
) -> tuple[Package, ...]:
    """Return the choices as the lock has them; sizes that nothing here says are asked for."""
    sizes = _sizes([choice.file for choice in chosen if choice.file is not None], known, http)
    return tuple(_package(choice, asked, root, sizes) for choice in chosen)


def _package(choice: Choice, asked: Asked, root: Path, sizes: Mapping[str, int]) -> Package:
    pinned, file = choice
    package = Package(
        name=pinned.name,
        version=pinned.version,
        filename=f"{pinned.name}-{pinned.commit}.git",
        sha256="",
        index=pinned.index,
        url=pinned.url if pinned.kind == "vcs" else "",
        commit=pinned.commit,
        subdirectory=pinned.subdirectory,
        requires=pinned.requires,
        wanted_by=asked.origins.get(pinned.name) or asked.origins_by_url(pinned.url),
    )
    if file is None:
        return package
    url = _lasting_url(pinned.url, root) if pinned.kind == "archive" else ""
    size = sizes[file.sha256]
    return msgspec.structs.replace(package, filename=file.filename, sha256=file.sha256, size=size, url=url)


def _lasting_url(url: str, root: Path) -> str:
    """Return a direct URL as the lock keeps it: no credentials; a file of the project by its path in the project."""
    path = file_path(url)
    if path is None and (secret := _SECRET.search(urlsplit(url).query)):
        raise LockError(
            f"{redact(url)}: an address with {secret[1]!r} in it would put a secret into the lock",
            hint="serve the file from an index or a folder (find-links), with the password in ~/.netrc",
        )
    if path is None:
        return without_credentials(url)
    try:
        return str(path.relative_to(root.absolute()))
    except ValueError:
        raise LockError(
            f"{path} is outside the project, and a lock holds no paths of one machine",
            hint="move the file into the project, or into a folder given by --find-links",
        ) from None


def _sizes(files: Sequence[File], packages: Sequence[Package], http: Http) -> dict[str, int]:
    """Return the size of each file by sha256: the index's word, that of `packages`, else the server's (0: unknown)."""
    known = {package.sha256: package.size for package in packages if package.size}
    known.update((file.sha256, file.size) for file in files if file.size)
    missing = [file for file in files if file.sha256 not in known]
    if missing:
        with ThreadPoolExecutor(max_workers=min(_ASKED_AT_ONCE, len(missing))) as pool:
            found = pool.map(lambda file: http.size_of(file.url), missing)
            known.update((file.sha256, size) for file, size in zip(missing, found, strict=True))
    return known


def remember(chosen: Sequence[Choice], packages: Sequence[Package], home: Home | None) -> None:
    """Keep where each file is, by sha256, outside the lock: an address is of this machine and today."""
    if home is None:
        return
    for choice, package in zip(chosen, packages, strict=True):
        if choice.file is not None and choice.file.url.startswith(("https://", "http://")):
            remember_url(home, package.sha256, without_credentials(choice.file.url))


def remember_url(home: Home, sha256: str, url: str) -> None:
    """Keep where the artifact with this hash is."""
    path = url_hint(home, sha256)
    if not path.exists() or path.read_text() != url:
        write_atomic(path, url.encode(), durable=False)


def url_hint(home: Home, sha256: str) -> Path:
    """Return the file that remembers where the artifact with this hash was last seen."""
    return home.metadata / "urls" / sha256
