"""What the project asks for, read as far as the lock needs it: names, hashes and where they stand."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urldefrag

from mlbox.errors import ProjectError
from mlbox.http import without_credentials
from mlbox.lock.model import Target
from mlbox.lock.python.model import Pinned
from mlbox.lock.python.target import marker_environment
from mlbox.project.model import Project, Requirement
from mlbox.project.requirement import local_path, marker_of

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
    """Those of the project's own lines that name neither one version nor one file."""
    folders: Mapping[str, str] = {}
    """Where the folders are that are installed for the target, by name."""
    edges: Mapping[str, frozenset[str]] = {}
    """What each of the folders asks for by name."""
    replaced: frozenset[str] = frozenset()
    """What the project's overrides name, which so takes the place of what others ask for."""

    def origins_by_url(self, url: str) -> tuple[str, ...]:
        """Return who asked for this direct URL or repository."""
        return self.urls.get(_bare(url), ()) if url else ()

    def also_by(self, lock: str, pins: Iterable[Pinned]) -> "Asked":
        """Return this with `lock` as the origin of the pins that neither the project nor another pin asks for."""
        pins = tuple(pins)
        needed = {name for names in (*(pin.requires for pin in pins), *self.edges.values()) for name in names}
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
    edges: dict[str, set[str]] = {}
    folders = _folders(project, target)
    for requirement in project.requirements:
        if requirement.kind == "folder":
            name, applies = folders.named.get(local_path(requirement), ""), folders.applies(requirement)
        else:
            line = _line(requirement, project.root)
            name, applies = _name(requirement, line, target)
            if name not in folders.places:  # else an index must not be asked: anybody may publish under that name
                lines.append(line)
        if not applies:
            continue
        if requirement.asked_by:
            edges.setdefault(requirement.asked_by, set()).update(filter(None, [name]))
        elif name:
            origins.setdefault(name, []).append(requirement.origin)
        elif requirement.kind != "folder":
            urls.setdefault(_bare(line), []).append(requirement.origin)
        if requirement.kind == "folder" or name in folders.places:
            continue
        if not requirement.asked_by and not _is_exact(requirement):
            loose.append(_OPTION.sub("", line).strip())
        if name:
            hashes.setdefault(name, set()).update(digest.lower() for digest in _HASH.findall(requirement.text))
    if project.settings.pip and project.foreign is None and project.conda is None and "pip" not in origins:
        lines.append("pip")
        origins["pip"] = [OWN_PIP]
    return Asked(
        lines=tuple(dict.fromkeys(lines)),
        origins={name: tuple(dict.fromkeys(found)) for name, found in origins.items()},
        hashes={name: frozenset(found) for name, found in hashes.items() if found},
        urls={url: tuple(dict.fromkeys(found)) for url, found in urls.items()},
        loose=tuple(loose),
        folders=folders.places,
        edges={name: frozenset(found - {name}) for name, found in edges.items()},
        replaced=frozenset(filter(None, (_name(one, one.text, target)[0] for one in project.overrides))),
    )


class _Folders(NamedTuple):
    """The folders that are installed for one target."""

    places: dict[str, str]
    """By name."""
    named: dict[str, str]
    """Their names, by place."""
    environment: Mapping[str, str]

    def applies(self, requirement: Requirement) -> bool:
        """Whether a requirement's marker holds."""
        from packaging.markers import Marker

        marker = marker_of(requirement)
        return not marker or Marker(marker).evaluate({**self.environment, "extra": ""})


def _folders(project: Project, target: Target) -> _Folders:
    found = _Folders({}, {}, marker_environment(target) if project.folders else {})
    known = {one.path: one for one in project.folders if one.package}
    for requirement in project.requirements:
        place = Path(local_path(requirement)).as_posix() if requirement.kind == "folder" else ""
        if place in known and found.applies(requirement):
            found.places[known[place].name] = place
            found.named[local_path(requirement)] = known[place].name
    return found


def _is_exact(requirement: Requirement) -> bool:
    """Whether it can mean one version or one file only, as pip asks of all where one has a hash."""
    text = requirement.text
    if requirement.kind == "named":
        return bool(_PINNED.fullmatch(_OPTION.sub("", text).partition(";")[0].strip()))
    return requirement.kind == "path" or (requirement.kind == "url" and bool(re.search(r"--hash|#sha256=", text)))


def _line(requirement: Requirement, root: Path) -> str:
    """Return the requirement for a resolver that runs elsewhere."""
    if requirement.kind != "path":
        return requirement.text
    place, marker = local_path(requirement), marker_of(requirement)
    path = (root / place).resolve()
    if not path.is_file():
        raise ProjectError(f"{requirement.origin}: no such file: {place}", hint="correct the path")
    return path.as_uri() + (f" ; {marker}" if marker else "")


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
