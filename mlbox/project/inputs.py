"""The digest of everything a lock is made from, which tells a stale lock from a fresh one."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlbox.codec import key_of
from mlbox.project.model import CondaSpec, IndexPin, Project, Requirement, Settings
from mlbox.project.requirement import channel_without_credentials, local_path, normalize, without_credentials


def inputs_digest(project: Project) -> str:
    """Return 'sha256:...' of what decides a lock.

    Comments, line numbers, the order and layout of files, credentials, the resolver (any answer that fits will do)
    and settings that only the image or a run needs do not change it. The content of local wheels does.
    """
    settings, index = project.settings, project.index
    return "sha256:" + key_of(
        {
            "requirements": _requirements(project, project.requirements),
            "constraints": _requirements(project, project.constraints),
            **({"overrides": _requirements(project, project.overrides)} if project.overrides else {}),
            **_folders(project),
            "requires-python": project.requires_python,
            "python": ".".join((settings.python or project.python_file).split(".")[:2]),
            "base": settings.base,
            "accelerator": settings.accelerator,
            **_accelerators(project),
            "pip": settings.pip,
            "system-packages": sorted(set(settings.system_packages)),
            # Absent when it is off, as in locks that are older than the setting.
            **({"auto-system-packages": True} if settings.auto_system_packages else {}),
            **({"apt-sources": _apt_sources(project)} if settings.apt_sources else {}),
            **({"snapshot": settings.snapshot} if settings.snapshot else {}),
            **_building(settings),
            "extras": sorted(set(map(normalize, settings.extras))),
            "groups": sorted(set(map(normalize, settings.groups))),
            "index": _clean([settings.index_url, index.index_url]),
            "extra-indexes": _clean([*settings.extra_index_urls, *index.extra_index_urls]),
            "find-links": _clean([*settings.find_links, *index.find_links]),
            "formats": [sorted(set(index.only_binary)), sorted(set(index.no_binary))],
            **({"conda": _conda(project.conda)} if project.conda else {}),
            # Absent where mlbox resolves by itself, as in locks that are older than imports.
            **({"foreign": [project.foreign.kind, project.foreign.sha256]} if project.foreign else {}),
            **({"pins": _pins(index.pins)} if index.pins else {}),
            "switches": [index.no_index, index.pre, index.prefer_binary, index.require_hashes],
        }
    )


def _folders(project: Project) -> dict[str, Any]:
    """Absent when there are none, as in locks that are older than these; what they ask for is a requirement."""
    found = [(one.path, one.name, bool(one.package)) for one in project.folders]
    return ({"folders": found} if found else {}) | ({"member": project.member} if project.member else {})


def _accelerators(project: Project) -> dict[str, Any]:
    """Absent when there is one, as in locks that are older than the settings. The first decides versions for all."""
    settings = project.settings
    found: dict[str, Any] = {}
    if settings.accelerators:
        found["accelerators"] = settings.accelerators
    if project.variants:
        found["variants"] = {name: _requirements(project, ones) for name, ones in project.variants.items()}
    if settings.accelerator_indexes:
        names, addresses = zip(*sorted(settings.accelerator_indexes.items()), strict=True)
        found["accelerator-indexes"] = [names, _clean(addresses)]
    return found


def _conda(spec: CondaSpec) -> dict[str, Any]:
    """The order of channels decides which one's package is taken; that of dependencies decides nothing."""
    return {
        "channels": [channel_without_credentials(channel) for channel in spec.channels],
        "dependencies": sorted({one.text for one in spec.dependencies}),
    }


def _apt_sources(project: Project) -> list[tuple[str, ...]]:
    return sorted(
        (one.name, without_credentials(one.uri), one.suite, " ".join(one.components), _sha256(project.root / one.key))
        for one in project.settings.apt_sources
    )


def _pins(pins: Iterable[IndexPin]) -> list[tuple[str, str, str]]:
    return sorted({(pin.package, without_credentials(pin.url), pin.marker) for pin in pins})


def _building(settings: Settings) -> dict[str, object]:
    """Return what decides how sources are built; absent where it is not set, as in older locks."""
    said = {
        "build-packages": sorted(set(settings.build_packages)),
        "build-base": settings.build_base,
        "gpu-architectures": sorted(set(settings.gpu_architectures)),
        "build": {normalize(name): options for name, options in settings.build.items()},
    }
    return {name: value for name, value in said.items() if value}


def _clean(addresses: Iterable[str]) -> list[str]:
    return [without_credentials(address) for address in addresses]


def _requirements(project: Project, requirements: Iterable[Requirement]) -> list[tuple[str, tuple[str, ...], str]]:
    return sorted(
        {(without_credentials(one.text), one.config_settings, _content(project, one)) for one in requirements}
    )


def _content(project: Project, requirement: Requirement) -> str:
    """Return the hash of a local wheel or sdist; folders and everything remote count by their text."""
    if requirement.kind != "path":
        return ""
    return _sha256(project.root / local_path(requirement))


def _sha256(file: Path) -> str:
    """Return the hash of a file's content, '' when there is none."""
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
