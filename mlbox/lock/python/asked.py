"""What the project asks for, read as far as the lock needs it: names, hashes and where they stand."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urldefrag, urlsplit

from mlbox.errors import ProjectError
from mlbox.http import without_credentials
from mlbox.lock.model import Target
from mlbox.lock.python.model import Pinned
from mlbox.lock.python.target import marker_environment
from mlbox.project.model import Project, Requirement

_HASH = re.compile(r"--hash[= ]\s*sha256:([0-9a-fA-F]{64})")
_OPTION = re.compile(r"\s+--(hash|config-settings?|global-option)[= ].*", re.DOTALL)
_PINNED = re.compile(r"[^=<>!~@;\[]+(\[[^\]]*\])?\s*===?[^,;]+")
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")

OWN_PIP = "mlbox (settings.pip)"
"""The origin of a pip that nobody else asks for."""


class Asked(NamedTuple):
    """The requirements as a resolver gets them, and what the lock says about them."""

    lines: tuple[str, ...]
    origins: Mapping[str, tuple[str, ...]]
    """By normalised name."""
    hashes: Mapping[str, frozenset[str]]
    urls: Mapping[str, tuple[str, ...]]
    """Origins of direct URLs whose name only the resolver learns."""
    loose: tuple[str, ...] = ()
    """Those of the lines that name neither one version nor one file."""

    def origins_by_url(self, url: str) -> tuple[str, ...]:
        """Return who asked for this direct URL or repository."""
        return self.urls.get(_bare(url), ()) if url else ()

    def also_by(self, lock: str, pins: Iterable[Pinned]) -> "Asked":
        """Return this with `lock` as the origin of the pins that neither the project nor another pin asks for."""
        pins = tuple(pins)
        needed = {name for pin in pins for name in pin.requires}
        alone = {pin.name: (lock,) for pin in pins if pin.name not in needed and not self.origins_by_url(pin.url)}
        return self._replace(origins={**alone, **self.origins})


def asked_for(project: Project, target: Target) -> Asked:
    """Read the project's requirements for `target`; pip itself is added when the settings want it.

    A foreign lock and a conda environment are whole: with one, pip is there when that has it.
    """
    lines: list[str] = []
    origins: dict[str, list[str]] = {}
    hashes: dict[str, set[str]] = {}
    urls: dict[str, list[str]] = {}
    loose: list[str] = []
    for requirement in project.requirements:
        line = _line(requirement, project.root)
        if line is None:
            continue
        lines.append(line)
        name, applies = _name(requirement, line, target)
        if not applies:
            continue
        if not _is_exact(requirement):
            loose.append(_OPTION.sub("", line).strip())
        if name:
            origins.setdefault(name, []).append(requirement.origin)
            hashes.setdefault(name, set()).update(digest.lower() for digest in _HASH.findall(requirement.text))
        else:
            urls.setdefault(_bare(line), []).append(requirement.origin)
    if project.settings.pip and project.foreign is None and project.conda is None and "pip" not in origins:
        lines.append("pip")
        origins["pip"] = [OWN_PIP]
    return Asked(
        lines=tuple(dict.fromkeys(lines)),
        origins={name: tuple(dict.fromkeys(found)) for name, found in origins.items()},
        hashes={name: frozenset(found) for name, found in hashes.items() if found},
        urls={url: tuple(dict.fromkeys(found)) for url, found in urls.items()},
        loose=tuple(loose),
    )


def _is_exact(requirement: Requirement) -> bool:
    """Whether it can mean one version or one file only, as pip asks of all where one has a hash."""
    text = requirement.text
    if requirement.kind == "named":
        return bool(_PINNED.fullmatch(_OPTION.sub("", text).partition(";")[0].strip()))
    return requirement.kind == "path" or (requirement.kind == "url" and bool(re.search(r"--hash|#sha256=", text)))


def _line(requirement: Requirement, root: Path) -> str | None:
    """Return the requirement for a resolver that runs elsewhere; None for the project itself."""
    if requirement.kind not in ("path", "editable"):
        return requirement.text
    text = re.sub(r"^(-e|--editable)[= ]\s*", "", requirement.text).strip()
    spec, _, marker = text.partition(" ;")
    place = re.sub(r"\[[^\]]*\]$", "", spec.strip())
    if urlsplit(place).scheme in ("http", "https") or place.startswith(("git+", "hg+", "svn+", "bzr+")):
        return text
    path = (root / place.removeprefix("file://")).resolve()
    if path == root.resolve():
        return None
    if path.is_dir():
        raise ProjectError(
            f"{requirement.origin}: {place} is a folder, and only the project itself can be one",
            hint="build a wheel of it and name the wheel, or publish it on an index",
        )
    if not path.exists():
        raise ProjectError(f"{requirement.origin}: no such file: {place}", hint="correct the path")
    return path.as_uri() + (f" ; {marker.strip()}" if marker else "")


def _name(requirement: Requirement, line: str, target: Target) -> tuple[str, bool]:
    """Return the normalised name ('' when only the resolver can tell) and whether its marker holds."""
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Parsed
    from packaging.utils import canonicalize_name

    try:
        parsed = Parsed(_OPTION.sub("", line).strip())
    except InvalidRequirement as problem:
        if requirement.kind == "named":
            text = str(problem).splitlines()[0]
            raise ProjectError(f"{requirement.origin}: not a requirement: {line}: {text}") from problem
        egg = _EGG.search(line)
        return (canonicalize_name(egg[1]) if egg else ""), True
    applies = parsed.marker is None or parsed.marker.evaluate({**marker_environment(target), "extra": ""})
    return canonicalize_name(parsed.name), applies


def _bare(url: str) -> str:
    """Reduce a direct URL to what the resolver's answer has in common with the requirement."""
    url = urldefrag(url.split(" ;")[0].strip())[0].removeprefix("git+")
    url = without_credentials(url)
    head, slash, last = url.rpartition("/")
    return f"{head}{slash}{last.split('@')[0] if '.whl' not in last else last}".removesuffix(".git")
