"""One lock for several accelerators: put together from one lock each, and taken apart again. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from mlbox.errors import FetchError, ResolveError, UsageError
from mlbox.lock.model import CondaPackage, Folder, LayerGroup, Lock, Package
from mlbox.project.requirement import normalize

_Package = TypeVar("_Package", Package, CondaPackage, Folder)


def for_accelerator(lock: Lock, name: str) -> Lock:
    """Return the part of `lock` that is for the accelerator `name`, as a lock of that one alone.

    Raises UsageError when the lock has no such part.
    """
    known = lock.accelerators or (lock.target.accelerator,)
    if name not in known:
        raise UsageError(
            f"mlbox.lock is not for accelerator {name!r}; it is for {', '.join(known)}",
            hint=f"'mlbox lock {' '.join(f'--accelerator {one}' for one in (*known, name))}' makes one for both"
            if len(known) == 1
            else "name one of them, or add it to accelerators and lock again",
        )
    if not lock.accelerators:
        return lock
    packages, conda = _of(lock.packages, name), _of(lock.conda, name)
    return msgspec.structs.replace(
        lock,
        accelerators=(),
        target=msgspec.structs.replace(lock.target, accelerator=name),
        packages=packages,
        build_packages=_of(lock.build_packages, name),
        folders=_of(lock.folders, name),
        layers=_groups(lock.layers, {package.name for package in packages}),
        conda=conda,
        conda_layers=_groups(lock.conda_layers, {package.name for package in conda}),
    )


def views(lock: Lock) -> tuple[Lock, ...]:
    """Return the lock of each accelerator that `lock` holds."""
    return tuple(for_accelerator(lock, name) for name in lock.accelerators or (lock.target.accelerator,))


def nearest(lock: Lock | None, name: str) -> Lock | None:
    """Return what an earlier lock has for the accelerator, else for its first."""
    if lock is None or not lock.accelerators:
        return lock
    return for_accelerator(lock, name if name in lock.accelerators else lock.accelerators[0])


@contextmanager
def speaking_of(name: str) -> Iterator[None]:
    """Let what is raised inside say that it is about the accelerator `name`."""
    try:
        yield
    except (ResolveError, FetchError) as problem:
        if repr(name) in problem.message:
            raise
        raise type(problem)(f"for accelerator {name!r}: {problem.message}", hint=problem.hint) from problem


def accelerator_with(lock: Lock, package: str) -> str:
    """Return the first accelerator of `lock` that has the Python package `package`; the first of all when none has."""
    having = [one.accelerators for one in lock.packages if one.name == normalize(package)]
    names = lock.accelerators if () in having else [name for name in lock.accelerators if name in sum(having, ())]
    return next(iter(names), lock.target.accelerator)


def merge_packages(found: Mapping[str, Sequence[_Package]]) -> tuple[_Package, ...]:
    """Return the packages of several accelerators, each once: those that are the same for all say no accelerator."""
    wanted_by: dict[_Package, list[str]] = {}
    for accelerator, packages in found.items():
        for package in packages:
            wanted_by.setdefault(package, []).append(accelerator)
    order = {accelerator: place for place, accelerator in enumerate(found)}
    merged = [
        package if len(names) == len(found) else msgspec.structs.replace(package, accelerators=tuple(names))
        for package, names in wanted_by.items()
    ]
    return tuple(sorted(merged, key=lambda package: (package.name, [order[one] for one in package.accelerators])))


def _of(packages: Sequence[_Package], name: str) -> tuple[_Package, ...]:
    return tuple(
        msgspec.structs.replace(package, accelerators=()) if package.accelerators else package
        for package in packages
        if name in (package.accelerators or (name,))
    )


def _groups(layers: Sequence[LayerGroup], present: set[str]) -> tuple[LayerGroup, ...]:
    left = [
        LayerGroup(name=layer.name, packages=tuple(name for name in layer.packages if name in present))
        for layer in layers
    ]
    return tuple(layer for layer in left if layer.packages)
