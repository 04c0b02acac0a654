"""Project x Target -> locked Python packages, by either resolver, for one accelerator or several."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import msgspec

from mlbox.errors import FetchError, ResolveError
from mlbox.events import SILENT, Listener, Once
from mlbox.http import Http, is_offline
from mlbox.lock.accelerators import merge_packages, nearest, speaking_of
from mlbox.lock.model import Folder, Lock, Package, Target
from mlbox.lock.python.asked import Asked, asked_for
from mlbox.lock.python.building import Sources, cuda_requires, options_of, with_options
from mlbox.lock.python.builds import (
    Resolver,
    builds_in_folders,
    differing,
    public_version,
    refuse_other_builds,
    resolve_with_torch,
)
from mlbox.lock.python.choosing import Choice, choose, packages_of, remember
from mlbox.lock.python.config import indexes_for
from mlbox.lock.python.folders import check_apart, folders_of, split
from mlbox.lock.python.hashes import check_closed, check_exact, require_hashes
from mlbox.lock.python.model import Index, Indexes, Pinned, Question
from mlbox.lock.python.pinned import pinned_pages
from mlbox.lock.python.sdist import Source, read_archive, read_tree
from mlbox.lock.python.vcs import checkout
from mlbox.paths import Home
from mlbox.project.model import Project

# 'default' takes whatever the default index has; the other names are those of `uv --torch-backend`.
_NO_BACKEND = ("", "default")
_SDIST_LIMIT = 1 << 31


class LockedPython(NamedTuple):
    """The Python part of a lock, each sorted by name."""

    packages: tuple[Package, ...]
    build_packages: tuple[Package, ...]
    folders: tuple[Folder, ...] = ()


def lock_python(
    project: Project,
    target: Target,
    *,
    previous: Lock | None = None,
    upgrade: bool | Sequence[str] = False,
    http: Http | None = None,
    listener: Listener = SILENT,
    find_links: Sequence[str] = (),
    home: Home | None = None,
    pins: Mapping[str, Sequence[Pinned]] | None = None,
) -> LockedPython:
    """Resolve the project's requirements for `target`, or take what its foreign lock pins; choose one file per package.

    `pins` are those of a conda environment, which are resolved with it, by accelerator.

    Versions of `previous` are kept where the requirements allow it, except those that `upgrade` names
    (True: all). Where the files are is remembered in `home`, so that a build need not ask the index again.
    Raises ResolveError with the resolver's explanation, FetchError when an index cannot be read.
    """
    means = _Means(upgrade, http or Http(), Once(listener), find_links, home, pins, {})
    names = project.settings.accelerators
    if not names:
        return _lock_one(project, target, previous, means)
    found = _lock_several(partial(_lock_accelerator, project, target, previous), names, means)
    for note in differing({name: one.packages for name, one in found.items()}):
        listener.note(note)
    return LockedPython(
        merge_packages({name: one.packages for name, one in found.items()}),
        merge_packages({name: one.build_packages for name, one in found.items()}),
        merge_packages({name: one.folders for name, one in found.items()}),
    )


class _Means(NamedTuple):
    """What locking needs besides the question."""

    upgrade: bool | Sequence[str]
    http: Http
    listener: Listener
    find_links: Sequence[str]
    home: Home | None
    pins: Mapping[str, Sequence[Pinned]] | None
    """What another tool pinned for an accelerator, in place of resolving."""
    sources: dict[str, Source]
    """What was read of sources, by hash: they are the same for all accelerators."""
    lasting: bool = False
    """Whether other accelerators follow."""


def _lock_several(lock: Callable[..., LockedPython], names: Sequence[str], means: _Means) -> dict[str, LockedPython]:
    """Lock for the first, then for the others with its versions in mind, and with what the indexes just answered."""
    first = lock(names[0], means._replace(lasting=True))
    with ThreadPoolExecutor(len(names)) as pool:
        others = pool.map(lambda name: lock(name, means, beside=first), names[1:])
        return {names[0]: first, **dict(zip(names[1:], others, strict=True))}


def _lock_accelerator(
    project: Project,
    target: Target,
    previous: Lock | None,
    name: str,
    means: _Means,
    *,
    beside: LockedPython | None = None,
) -> LockedPython:
    mine = msgspec.structs.replace(target, accelerator=name)
    with speaking_of(name):
        locked = _lock_one(project.for_accelerator(name), mine, nearest(previous, name), means, beside)
        refuse_other_builds(locked.packages, name)
    return locked


def _lock_one(
    project: Project, target: Target, previous: Lock | None, means: _Means, beside: LockedPython | None = None
) -> LockedPython:
    """Lock for one accelerator, `beside` what was locked for another: with its versions where that is possible."""
    http, listener = means.http, means.listener
    indexes = indexes_for(project, find_links=means.find_links, listener=listener)
    for index in (*indexes.all, *indexes.pinned, *filter(None, [indexes.torch])):
        http.learn(index.url)
    asked = asked_for(project, target)
    if hashed := require_hashes(project, asked):
        check_exact(asked)
    known = (*(beside.packages if beside else ()), *(previous.packages if previous else ()))
    wishes = _Wishes.of(_preferences(previous, target, means.upgrade), beside)
    question = _question(project, target, asked, indexes, wishes, listener)
    question = msgspec.structs.replace(question, lasting=means.lasting)
    if means.pins is not None:
        from mlbox.lock.foreign.completing import complete

        what = project.foreign.path if project.foreign else "conda-lock"
        pins = complete(
            means.pins[target.accelerator], target, indexes, http, folder=project.root, known=known, what=what
        )
        asked = asked.also_by(what, pins)
    elif project.foreign is not None:
        from mlbox.lock.foreign.importing import import_pins, upgrade_note

        if means.upgrade:
            listener.note(upgrade_note(project, () if means.upgrade is True else means.upgrade))
        pins = import_pins(project, target, indexes, http, known=known, listener=listener)
        pins = _with_versions(pins, question, _resolver(project))
        asked = asked.also_by(project.foreign.path, pins)
    else:
        listener.step(f"resolve {len(question.requirements)} requirements with {project.settings.resolver}")
        if indexes.default is not None and question.requirements and not is_offline():
            # Not a daemon: one that imports while the interpreter ends takes it down.
            Thread(target=http.warm_up, args=(indexes.default.url,)).start()
        question = msgspec.structs.replace(
            question, pinned_pages=pinned_pages(project.index.pins, indexes, target, http)
        )
        pins = _resolve(question, wishes, indexes.torch, http, _resolver(project, listener))
    folders = folders_of(asked, pins)
    if project.foreign is not None:
        folders, pins = split(pins, asked, project)
    check_apart(folders, pins)
    chosen = choose(pins, question, asked)
    if hashed:
        check_closed(asked, pins)
    packages = packages_of(chosen, asked, project.root, known, http)
    remember(chosen, packages, means.home)
    sources = _sources(packages, chosen, means)
    build = _build_packages(packages, sources, question, project, known, means)
    return LockedPython(with_options(packages, sources, project, asked), build, folders)


class _Wishes(NamedTuple):
    """Versions that are taken where the requirements allow it."""

    preferences: dict[str, str]
    constraints: tuple[str, ...] = ()
    """Versions of packages that have a build for each accelerator ('torch==2.9.1'), which are no preference of any
    one build; given up together when they cannot be had."""

    @classmethod
    def of(cls, before: Mapping[str, str], beside: LockedPython | None) -> "_Wishes":
        found = [one for one in (*beside.build_packages, *beside.packages) if not one.url] if beside else []
        builds = {one.name: one for one in found if "+" in one.version or one.name == "torch"}.values()
        shared = {one.name: one.version for one in found if one not in builds}
        return cls({**before, **shared}, tuple(f"{one.name}=={public_version(one.version)}" for one in builds))


def _resolve(
    question: Question, wishes: _Wishes, torch: Index | None, http: Http, resolver: Resolver
) -> tuple[Pinned, ...]:
    """Ask for the same versions as another accelerator has; for what there is when that is not to be had."""
    ask = partial(resolve_with_torch, torch=torch, http=http, resolver=resolver)
    if wishes.constraints:
        wished = msgspec.structs.replace(question, constraints=(*question.constraints, *wishes.constraints))
        with suppress(ResolveError):
            return ask(wished)
    return ask(question)


def _resolver(project: Project, listener: Listener = SILENT) -> Resolver:
    if project.settings.resolver == "pip-tools":
        if project.settings.extra_index_urls or project.index.extra_index_urls:
            listener.note(
                "pip-tools takes the best version of any index, where uv asks the extra ones first and stops: "
                "beware of dependency confusion"
            )
        from mlbox.lock.python.piptools import resolve_with_piptools

        return resolve_with_piptools
    from mlbox.lock.python.uv import resolve_with_uv

    return resolve_with_uv


def _with_versions(pins: Iterable[Pinned], question: Question, resolver: Resolver) -> tuple[Pinned, ...]:
    """Ask for the versions that a foreign lock leaves out: of repositories, and of archives that do not say it."""

    def version(pin: Pinned) -> str:
        place = f"git+{pin.url}@{pin.commit}" if pin.kind == "vcs" else pin.url
        part = f"#subdirectory={pin.subdirectory}" if pin.subdirectory else ""
        alone = msgspec.structs.replace(question, requirements=(f"{pin.name} @ {place}{part}",), constraints=())
        return next((one.version for one in resolver(alone) if one.name == pin.name), "")

    return tuple(
        pin if pin.version or pin.kind == "directory" else msgspec.structs.replace(pin, version=version(pin))
        for pin in pins
    )


def _preferences(previous: Lock | None, target: Target, upgrade: bool | Sequence[str]) -> dict[str, str]:
    from packaging.utils import canonicalize_name

    if previous is None or upgrade is True or previous.target.python != target.python:
        return {}
    moving = {canonicalize_name(name) for name in upgrade or ()}
    found = (*previous.build_packages, *previous.packages)
    return {package.name: package.version for package in found if package.name not in moving and not package.url}


def _question(
    project: Project,
    target: Target,
    asked: Asked,
    indexes: Indexes,
    wishes: _Wishes,
    listener: Listener,
) -> Question:
    options, accelerator = project.index, target.accelerator
    constraints = [requirement.text for requirement in project.constraints]
    backend = ""
    # Where hashes say which build is meant, nothing else does.
    decided = project.foreign is not None or project.conda is not None or require_hashes(project, asked)
    if accelerator not in _NO_BACKEND and not decided:
        local = builds_in_folders(indexes, target, [*asked.lines, *constraints], wishes.constraints)
        constraints += [f"{name}=={version}" for name, version in local.items()]
        for name, version in local.items():
            listener.note(f"{name} {version}: taken from find-links, which has it for accelerator {accelerator!r}")
        own = accelerator in project.settings.accelerator_indexes
        if "torch" not in local and (own or (not indexes.extra and options.index_url == "")):
            backend = accelerator
    return Question(
        requirements=asked.lines,
        constraints=tuple(constraints),
        absent=tuple(asked.folders),
        overrides=tuple(requirement.text for requirement in project.overrides),
        target=target,
        indexes=indexes,
        preferences=wishes.preferences,
        pre=options.pre,
        only_binary=options.only_binary,
        no_binary=options.no_binary,
        torch_backend=backend,
    )


def torch_places(package: Package, target: Target, indexes: Indexes) -> tuple[str, ...]:
    """Return where a package of the index 'torch' is; only uv knows that index's address."""
    from mlbox.lock.python.uv import resolve_with_uv

    question = Question(
        requirements=(f"{package.name}=={package.version}",),
        target=target,
        indexes=indexes,
        torch_backend=target.accelerator,
    )
    pins = resolve_with_uv(question)
    return tuple(file.url for pin in pins for file in pin.files if file.filename == package.filename)


def _sources(packages: Sequence[Package], chosen: Sequence[Choice], means: _Means) -> Sources:
    """Return what building each sdist and checkout takes, by name."""
    found: dict[str, Source] = {}
    for package, choice in zip(packages, chosen, strict=True):
        if package.is_wheel:
            continue
        content = f"{package.sha256 or package.commit} {package.subdirectory}"
        if content not in means.sources:
            means.sources[content] = _source_of(package, choice, means.http)
        source = found[package.name] = means.sources[content]
        how = f", compiled ({', '.join(source.compiled)})" if source.compiled else ""
        means.listener.note(
            f"{package.name} {package.version} has no wheel for the target: it will be built in a container{how}"
        )
    return found


def _build_packages(
    packages: Sequence[Package],
    sources: Sources,
    question: Question,
    project: Project,
    known: Sequence[Package],
    means: _Means,
) -> tuple[Package, ...]:
    """Resolve what building the sdists and checkouts needs; wheels only, so that it ends there.

    What the environment has too is taken in the same version where the requirements allow it: extension modules are
    made for the numpy or torch that will load them.
    """
    if not sources:
        return ()
    lines = {line for source in sources.values() for line in source.requires}
    lines |= {line for name in sources for line in options_of(project, name).requires}
    of_cuda = ", ".join(name for name, source in sources.items() if "cuda" in source.compiled)
    if of_cuda and not project.settings.build_base:
        lines.update(cuda_requires(packages, question.target.accelerator, of_cuda))
    asked = Asked(lines=tuple(sorted(lines)), origins={}, hashes={}, urls={})
    same = {package.name: package.version for package in packages if not package.url}
    again = Question(
        requirements=asked.lines,
        constraints=tuple(f"torch=={version}" for name, version in same.items() if name == "torch"),
        target=question.target,
        indexes=question.indexes,
        preferences=question.preferences | same,
        absent=question.absent,
        only_binary=(":all:",),
        torch_backend=question.torch_backend,
    )
    try:
        pins = resolve_with_torch(again, torch=again.indexes.torch, http=means.http, resolver=_resolver(project))
        found = choose(pins, again, asked)
    except ResolveError as problem:
        who = ", ".join(f"{package.name} {package.version}" for package in packages if package.name in sources)
        raise ResolveError(
            f"what building {who} needs cannot be had: {problem.message}", hint=problem.hint
        ) from problem
    locked = packages_of(found, asked, project.root, known, means.http)
    remember(found, locked, means.home)
    return locked


def _source_of(package: Package, choice: Choice, http: Http) -> Source:
    with tempfile.TemporaryDirectory(prefix="mlbox-sdist-") as folder:
        if choice.file is None:
            tree = Path(folder) / "tree"
            checkout(package.url, package.commit, tree)
            return read_tree(tree / package.subdirectory, what=package.name)
        if package.size > _SDIST_LIMIT:
            raise FetchError(f"{package.filename}: too large for a source archive")
        path = Path(folder) / package.filename
        http.download([choice.file.url], path, sha256=package.sha256, size=package.size)
        return read_archive(path, subdirectory=package.subdirectory)
