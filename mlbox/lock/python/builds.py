"""Which build of a package an accelerator gets: '2.9.1+cu126' is the version 2.9.1, built for CUDA 12.6."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from mlbox.errors import ResolveError
from mlbox.http import Http
from mlbox.lock.model import CondaPackage, Package, Target
from mlbox.lock.python.model import Index, Indexes, Pinned, Question
from mlbox.lock.python.pages import local_files
from mlbox.lock.python.target import best_file, marker_environment
from mlbox.lock.python.torch import FAMILY, pages_of
from mlbox.project.model import ACCELERATOR
from mlbox.project.requirement import normalize

if TYPE_CHECKING:
    from packaging.version import Version

Resolver = Callable[[Question], tuple[Pinned, ...]]


def builds_in_folders(indexes: Indexes, target: Target, asked: Sequence[str], wishes: Sequence[str]) -> dict[str, str]:
    """Return the newest builds for the accelerator ('2.13.0+cpu') among local find-links that fit `target`.

    Without this the newest version of the default index would win, which is a build for CUDA. What the lines in
    `asked` say of a package counts where something fits, and so do the `wishes`.
    """
    from packaging.utils import parse_wheel_filename

    builds: dict[str, dict[str, list[Version]]] = {}
    for file in local_files(indexes.find_links):
        if best_file((file,), target) is not None and file.filename.endswith(".whl"):
            project, version, _, _ = parse_wheel_filename(file.filename)
            builds.setdefault(project, {}).setdefault(version.local or "", []).append(version)
    found: dict[str, str] = {}
    for name, by_local in sorted(builds.items()):
        if mine := by_local.get(target.accelerator):
            fitting = [version for version in mine if _allowed(asked, name, version, target)]
            wished = [version for version in fitting if wishes and _allowed(wishes, name, version, target)]
            found[name] = str(max(wished or fitting or mine))
    return found


def _allowed(lines: Iterable[str], name: str, version: "Version", target: Target) -> bool:
    """Whether the requirements among `lines` that are about the package admit the version."""
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Parsed

    for line in lines:
        try:
            one = Parsed(line.partition(" --")[0])
        except InvalidRequirement:
            continue
        applies = one.marker is None or one.marker.evaluate({**marker_environment(target), "extra": ""})
        if applies and normalize(one.name) == name and not one.specifier.contains(version, prereleases=True):
            return False
    return True


def resolve_with_torch(
    question: Question, *, torch: Index | None, http: Http, resolver: Resolver
) -> tuple[Pinned, ...]:
    """Read the index of torch builds that is configured only when there is something to take from it."""
    if torch is None or not question.torch_backend:
        return resolver(question)
    plain = msgspec.structs.replace(question, torch_backend="")
    named = {normalize(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]) for line in question.requirements}
    if named.isdisjoint(FAMILY):
        with suppress(ResolveError):
            pins = resolver(plain)
            if not any(pin.name in FAMILY for pin in pins):
                return pins
    pages = pages_of(torch, question.target.accelerator, http)
    return resolver(msgspec.structs.replace(plain, torch_pages=pages))


def refuse_other_builds(packages: Sequence[Package], name: str) -> None:
    """A folder or index may have builds for other accelerators only: the newest of these would be taken."""
    for package in packages:
        build = package.version.partition("+")[2]
        if not package.url and build != name and name != "default" and ACCELERATOR.fullmatch(build):
            raise ResolveError(
                f"{package.name} has no build for accelerator {name!r}; what there is, is {package.version}",
                hint=f"take {name} out of accelerators, or name a place that has it: find-links, accelerator-indexes",
            )


def differing(found: Mapping[str, Sequence[Package | CondaPackage]]) -> Iterator[str]:
    """Yield which packages have other versions for some accelerators; builds of one version are the same version."""
    versions: dict[str, dict[str, list[str]]] = {}
    for accelerator, packages in found.items():
        for package in packages:
            versions.setdefault(package.name, {}).setdefault(public_version(package.version), []).append(accelerator)
    for name, by_version in sorted(versions.items()):
        if len(by_version) > 1:
            which = ", ".join(f"{version} for {' and '.join(names)}" for version, names in by_version.items())
            yield f"{name} is not the same for all accelerators: {which}"


def public_version(version: str) -> str:
    """Return a version without what names a build of it: '2.9.1' of '2.9.1+cu126'."""
    return version.partition("+")[0]
