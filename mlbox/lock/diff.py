"""What would change from one lock to another, as values and as lines for people. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from mlbox.lock.model import Base, CondaPackage, Deb, Folder, LayerGroup, Lock, Package


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs; `old` or `new` is empty when it was added or removed."""

    kind: Literal[
        "package", "build-package", "folder", "conda", "deb", "build-deb", "target", "base", "setting", "layer"
    ]
    name: str
    old: str = ""
    new: str = ""
    detail: str = ""
    """What differs when old and new read the same: 'other file: ...'."""
    accelerators: tuple[str, ...] = ()
    """The accelerators it is about; empty: all that the locks hold."""


class LockDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that differs between two locks."""

    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.changes)


def diff_locks(old: Lock | None, new: Lock) -> LockDiff:
    """Return what `new` has that `old` (None: nothing) had not, and the other way round."""
    if old is None:
        nothing = msgspec.structs.replace(new, packages=(), folders=())
        debs = (*_debs((), new.debs), *_debs((), new.build_debs, kind="build-deb"))
        kinds: tuple[_PackageKind, ...] = ("package", "folder", "conda")
        return LockDiff(changes=(*(change for kind in kinds for change in _packages(kind, nothing, new)), *debs))
    return LockDiff(
        changes=(
            *_fields("target", old.target, new.target),
            *_base(old.base, new.base),
            *_settings(old, new),
            *_packages("package", old, new),
            *_packages("build-package", old, new),
            *_packages("folder", old, new),
            *_packages("conda", old, new),
            *_debs(old.debs, new.debs),
            *_debs(old.build_debs, new.build_debs, kind="build-deb"),
            *_layers(old.layers, new.layers),
            *_layers(old.conda_layers, new.conda_layers),
        )
    )


def render_diff(diff: LockDiff) -> list[str]:
    """Return one line per change: '+ numpy 2.4.1', '- six 1.17.0', '~ torch 2.9.0 -> 2.9.1'."""
    return [_line(change) for change in diff.changes]


def _line(change: Change) -> str:
    what = change.name if change.kind == "package" else f"{change.kind} {change.name}"
    whose = f" [{', '.join(change.accelerators)}]" if change.accelerators else ""
    if change.detail and change.old == change.new:
        return f"~ {what} {change.new} ({change.detail}){whose}"
    if not change.old:
        return f"+ {what} {change.new}{whose}"
    if not change.new:
        return f"- {what} {change.old}{whose}"
    return f"~ {what} {change.old} -> {change.new}" + (f" ({change.detail})" if change.detail else "") + whose


_PackageKind = Literal["package", "build-package", "folder", "conda"]


def _packages(kind: _PackageKind, old: Lock, new: Lock) -> Iterator[Change]:
    """Yield each change once, with the accelerators it is about where these are not all."""
    several = bool(old.accelerators or new.accelerators)
    before, after = _by_accelerator(kind, old, several), _by_accelerator(kind, new, several)
    every = [*after, *(one for one in before if one not in after)]
    known = {
        _what(package)
        for one in before.keys() & after.keys()
        for package in (*before[one].values(), *after[one].values())
    }
    for name in sorted({name for found in (*before.values(), *after.values()) for name in found}):
        changes: dict[Change, list[str]] = {}
        silent = 0
        for one in every:
            was, now = before.get(one, {}).get(name), after.get(one, {}).get(name)
            # What an accelerator that came or went has in common with those that stay is no news of its own.
            if (one in before) != (one in after) and all(
                package is None or _what(package) in known for package in (was, now)
            ):
                silent += 1
                continue
            for change in _change(kind, name, was, now):
                changes.setdefault(change, []).append(one)
        for change, names in changes.items():
            some = () if len(names) + silent == len(every) else tuple(names)
            yield msgspec.structs.replace(change, accelerators=some)


_Any = Package | CondaPackage | Folder


def _by_accelerator(kind: _PackageKind, lock: Lock, several: bool) -> dict[str, dict[str, _Any]]:
    kinds: dict[_PackageKind, Sequence[_Any]] = {
        "package": lock.packages,
        "build-package": lock.build_packages,
        "folder": lock.folders,
        "conda": lock.conda,
    }
    packages = kinds[kind]
    # Between two locks of one accelerator each, that may be another one: its build is another build of the same.
    names = lock.accelerators or (lock.target.accelerator if several else "",)
    return {
        one: {package.name: package for package in packages if one in (package.accelerators or (one,))} for one in names
    }


def _change(kind: _PackageKind, name: str, was: _Any | None, now: _Any | None) -> Iterator[Change]:
    old, new = _version(was), _version(now)
    detail = "; ".join(_detail(was, now)) if was and now else ""
    if old != new or detail:
        yield Change(kind=kind, name=name, old=old, new=new, detail=detail)


def _detail(was: _Any, now: _Any) -> Iterator[str]:
    if isinstance(was, CondaPackage) and isinstance(now, CondaPackage):
        yield from _conda_detail(was, now)
    elif isinstance(was, Package) and isinstance(now, Package) and _version(was) == _version(now):
        yield from _file_detail(was, now)


def _what(package: _Any) -> tuple[str, str, str]:
    return package.name, _version(package), "" if isinstance(package, Folder) else package.sha256


_BUILDING = ("compiled", "gpu_architectures", "build_env", "config_settings", "build_gpu", "build_network")


def _version(package: _Any | None) -> str:
    if package is None:
        return ""
    if isinstance(package, Folder):
        return package.path
    commit = package.commit if isinstance(package, Package) else ""
    return f"{package.version} ({commit[:12]})" if commit else package.version


def _file_detail(old: Package, new: Package) -> Iterator[str]:
    if old.filename != new.filename:
        yield f"{old.filename} -> {new.filename}"
    elif old.sha256 != new.sha256:
        yield f"other content of {new.filename}: sha256 {old.sha256[:12]} -> {new.sha256[:12]}"
    for field in ("index", "url", "subdirectory"):
        if getattr(old, field) != getattr(new, field):
            yield f"{field} {getattr(old, field)} -> {getattr(new, field)}"
    if any(getattr(old, field) != getattr(new, field) for field in _BUILDING):
        yield "is built otherwise"


def _conda_detail(old: CondaPackage, new: CondaPackage) -> Iterator[str]:
    if old.version == new.version and old.build != new.build:
        yield f"build {old.build} -> {new.build}"
    elif old.version == new.version and old.sha256 != new.sha256:
        yield f"other content of {new.filename}: sha256 {old.sha256[:12]} -> {new.sha256[:12]}"
    if old.channel != new.channel:
        yield f"channel {old.channel} -> {new.channel}"


def _debs(old: Sequence[Deb], new: Sequence[Deb], *, kind: Literal["deb", "build-deb"] = "deb") -> Iterator[Change]:
    before, after = {(d.name, d.arch): d for d in old}, {(d.name, d.arch): d for d in new}
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        versions = (was.version if was else "", now.version if now else "")
        if versions[0] != versions[1]:
            yield Change(kind=kind, name=key[0], old=versions[0], new=versions[1])
        elif was and now and was.sha256 != now.sha256:
            detail = f"other content: sha256 {was.sha256[:12]} -> {now.sha256[:12]}"
            yield Change(kind=kind, name=key[0], old=versions[0], new=versions[1], detail=detail)


def _settings(old: Lock, new: Lock) -> Iterator[Change]:
    for field in ("rules", "epoch", "resolver"):
        was, now = str(getattr(old, field)), str(getattr(new, field))
        if was != now:
            yield Change(kind="setting", name=field, old=was, new=now)
    if old.accelerators != new.accelerators:
        was, now = (", ".join(lock.accelerators or (lock.target.accelerator,)) for lock in (old, new))
        yield Change(kind="setting", name="accelerators", old=was, new=now)
    for name in sorted(set(old.system_packages) ^ set(new.system_packages)):
        kept = "asked for"
        added = name in new.system_packages
        yield Change(
            kind="setting", name=f"system package {name}", old="" if added else kept, new=kept if added else ""
        )


def _layers(old: Sequence[LayerGroup], new: Sequence[LayerGroup]) -> Iterator[Change]:
    """Yield packages that moved to another layer; that a package came or went is said elsewhere."""
    before, after = _homes(old), _homes(new)
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield Change(kind="layer", name=f"of {name}", old=before[name], new=after[name])


def _homes(layers: Sequence[LayerGroup]) -> Mapping[str, str]:
    return {name: layer.name for layer in layers for name in layer.packages}


def _base(old: Base, new: Base) -> Iterator[Change]:
    """Yield what differs in words of the user: the name, what it means, and what the image sets."""
    yield from _fields("base", old, new, ("kind", "suite", "reference", "home", "user"))
    moved = (old.digest, old.manifest) != (new.digest, new.manifest)
    if moved and new.digest and old.digest:
        name, was, now = (new.reference, old.digest[:19], new.digest[:19])
        before = {layer.diff_id for layer in old.layers}
        same = sum(layer.diff_id in before for layer in new.layers)
        detail = f"{same} of {len(new.layers)} layers stay"
        yield Change(kind="base", name=name, old=was, new=now, detail=detail)
    for field in ("env", "labels"):
        was_items, now_items = _items(getattr(old, field)), _items(getattr(new, field))
        for name in sorted(was_items.keys() | now_items.keys()):
            values = (was_items.get(name, ""), now_items.get(name, ""))
            if values[0] != values[1]:
                yield Change(kind="base", name=f"{field} {name}", old=values[0], new=values[1])


def _items(pairs: Sequence[str]) -> Mapping[str, str]:
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _fields(
    kind: Literal["target", "base"], old: msgspec.Struct, new: msgspec.Struct, fields: Sequence[str] = ()
) -> Iterator[Change]:
    for field in fields or old.__struct_fields__:
        was, now = str(getattr(old, field)), str(getattr(new, field))
        if was != now:
            yield Change(kind=kind, name=field.replace("_", "-"), old=was, new=now)
