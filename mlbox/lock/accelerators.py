"""One lock for several accelerators: put together from one lock each, and taken apart again. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from mlbox.errors import UsageError
from mlbox.lock.model import LayerGroup, Lock, Package
from mlbox.project.requirement import normalize


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
    packages = _of(lock.packages, name)
    return msgspec.structs.replace(
        lock,
        accelerators=(),
        target=msgspec.structs.replace(lock.target, accelerator=name),
        packages=packages,
        build_packages=_of(lock.build_packages, name),
        layers=_groups(lock.layers, {package.name for package in packages}),
    )


def views(lock: Lock) -> tuple[Lock, ...]:
    """Return the lock of each accelerator that `lock` holds."""
    return tuple(for_accelerator(lock, name) for name in lock.accelerators or (lock.target.accelerator,))


def accelerator_with(lock: Lock, package: str) -> str:
    """Return the first accelerator of `lock` that has the Python package `package`; the first of all when none has."""
    having = [one.accelerators for one in lock.packages if one.name == normalize(package)]
    names = lock.accelerators if () in having else [name for name in lock.accelerators if name in sum(having, ())]
    return next(iter(names), lock.target.accelerator)


def merge_packages(found: Mapping[str, Sequence[Package]]) -> tuple[Package, ...]:
    """Return the packages of several accelerators, each once: those that are the same for all say no accelerator."""
    wanted_by: dict[Package, list[str]] = {}
    for accelerator, packages in found.items():
        for package in packages:
            wanted_by.setdefault(package, []).append(accelerator)
    order = {accelerator: place for place, accelerator in enumerate(found)}
    merged = [
        package if len(names) == len(found) else msgspec.structs.replace(package, accelerators=tuple(names))
        for package, names in wanted_by.items()
    ]
    return tuple(sorted(merged, key=lambda package: (package.name, [order[one] for one in package.accelerators])))


def _of(packages: Sequence[Package], name: str) -> tuple[Package, ...]:
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
