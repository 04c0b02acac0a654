"""Would everything in an image's environment find its libraries? Read once for an environment, and kept."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec

from mlbox import resources
from mlbox.build.linking import Finding, Ground, Linker
from mlbox.codec import decode_json, key_of
from mlbox.engine.cuda import remarks as remarks_on_cuda
from mlbox.engine.cuda import ways_to
from mlbox.errors import BuildError, MlboxError
from mlbox.events import Listener
from mlbox.files import write_atomic
from mlbox.gpu.fit import is_variant
from mlbox.gpu.frameworks import brought_by
from mlbox.lock.file import decode_lock
from mlbox.lock.model import Lock
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.oci.image import Image
from mlbox.plan.model import PREFIX, BuildPlan
from mlbox.project.model import Settings
from mlbox.store.store import Store
from mlbox.store.tree import Tree
from mlbox.units import mega

if TYPE_CHECKING:
    from mlbox.build.binaries import Binary

_FORMAT = 3
_SHOWN = 4
_SEARCHED = "LD_LIBRARY_PATH="
T = TypeVar("T")


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in an environment."""

    findings: tuple[Finding, ...]


def prove(store: Store, image: Image, plan: BuildPlan, lock: Lock) -> tuple[tuple[Finding, ...], bool]:
    """Return what the loader would not find in the image that was built from `plan`, and whether that was not known.

    Equal environments on equal systems are looked at once, equal layers too.
    """
    diff_ids = image.config.rootfs.diff_ids
    layers = list(zip((layer.kind for layer in plan.layers), diff_ids, strict=True))
    below = [diff_id for kind, diff_id in layers if kind in ("base", "system", "configured", "run")]
    environment = [diff_id for kind, diff_id in layers if kind == "environment"]
    searched = next((line[len(_SEARCHED) :] for line in plan.config.env if line.startswith(_SEARCHED)), "")
    if conda := [diff_id for kind, diff_id in layers if kind == "conda"]:
        # Whatever conda's Python loads finds conda's libraries: its run path counts for all of them (ld.so(8)).
        below, searched = [*below, *conda], ":".join(filter(None, (searched, f"/{PREFIX}/lib")))
    fresh = False

    def look() -> Proof:
        nonlocal fresh
        fresh = True
        binaries = [binary for diff_id in environment for binary in _binaries(store, diff_id, lock)]
        linker = Linker(binaries, _ground(store, below, searched, lock), lock.target.python, _driver_stems())
        return Proof(findings=linker.findings())

    driver = (resources.folder("gpu") / "libraries.toml").read_text()
    key = key_of([_FORMAT, lock.target, searched, driver, below, environment])
    return _kept(store, f"proof-{key}", Proof, look).findings, fresh


def findings_of(store: Store, digest: Digest) -> tuple[Finding, ...]:
    """Return the same of an image in the store; nothing of one that was not built from a plan."""
    plan, lock = store.referrers.plan_of(digest), store.referrers.lock_of(digest)
    if plan is None or lock is None:
        return ()
    try:
        decoded = decode_json(plan, BuildPlan, what="plan")
        return prove(store, store.images.load(digest), decoded, decode_lock(lock))[0]
    except (MlboxError, ValueError):
        return ()  # they came with somebody's image, and do not fit it


def remarks_of(store: Store, digest: Digest) -> tuple[str, ...]:
    """Return what there is to say of an image's libraries, a line each."""
    data = store.referrers.lock_of(digest)
    try:
        lock = decode_lock(data) if data else None
    except MlboxError:
        return ()  # it came with somebody's image
    if lock is None:
        return ()
    return (*remarks_on_cuda(lock), *remarks(findings_of(store, digest), lock.base.suite))


def lacking_packages(findings: Iterable[Finding], settings: Settings, lock: Lock) -> tuple[str, ...]:
    """Return what to add to the lock when the project wants that: whose libraries packages cannot work without."""
    if not settings.auto_system_packages:
        return ()
    from mlbox.build.ground import package_of

    lacking = (one.name for one in findings if one.is_fatal and one.kind == "missing")
    found = {package_of(name, lock.base.suite) for name in lacking if name not in settings.allow_missing}
    return tuple(sorted(found - {"", *lock.system_packages}))


def judge(findings: Sequence[Finding], settings: Settings, lock: Lock, listener: Listener, *, tell: bool) -> None:
    """Raise BuildError for what keeps a package from working, and `tell` of the rest, but for what is accepted."""
    accepted = set(settings.allow_missing)
    concerning = [one for one in findings if one.name not in accepted]
    if fatal := [one for one in concerning if one.is_fatal]:
        raise _refusal(fatal, settings, lock)
    if tell:
        for line in remarks(concerning, lock.base.suite):
            listener.note(line)


def remarks(findings: Iterable[Finding], suite: str) -> Iterator[str]:
    """Yield what there is to say of `findings`: of each package a line for its modules, and one for its other files."""
    groups: dict[tuple[str, str, bool], list[Finding]] = {}
    for one in findings:
        if one.kind == "missing" and brought_by(one.name) and all(map(is_variant, one.needed_by)):
            continue  # a library for another CUDA, which nobody loads
        groups.setdefault((one.kind, one.package, bool(one.modules)), []).append(one)
    for (kind, package, _), found in groups.items():
        yield "".join(one if one.isprintable() else "?" for one in _remark(kind, package, found, suite))


def _remark(kind: str, package: str, found: Sequence[Finding], suite: str) -> str:
    who = package or "a file of no package"
    match kind:
        case "missing":
            return f"{who}: {_who(found)} {_list(found, suite)}, which the image lacks"
        case "glibc":
            return f"{who}: {_who(found)} glibc {found[-1].name[6:]}, and the image has {found[-1].instead}"
        case "driver":
            paths = ", ".join(f"/{path}" for one in found for path in one.needed_by)
            return f"{package or 'LD_LIBRARY_PATH'} has {paths}, in place of the library of NVIDIA's driver"
        case _:
            size = mega(sum(one.size for one in found))
            names = ", ".join(one.name for one in found)
            return f"{names} of {who} are in the base too: {size} that one of them would save"


def _who(found: Sequence[Finding]) -> str:
    modules = {module for one in found for module in one.modules}
    if modules:
        some = f"{len(modules)} of {found[0].of} extension modules" if found[0].of > 1 else "its extension module"
        return f"{some} ({_module(min(modules))}) need{'s' if len(modules) == 1 else ''}"
    files = {path for one in found for path in one.needed_by}
    some = f"{len(files)} of its libraries and programs" if len(files) > 1 else f"/{min(files)}"
    return f"{some} need{'s' if len(files) == 1 else ''}"


def _module(path: str) -> str:
    """Return how Python calls the extension module at `path`."""
    return path.partition("site-packages/")[2].partition(".")[0].replace("/", ".") or path


def _list(found: Sequence[Finding], suite: str) -> str:
    names = [_named(one.name, suite) for one in found]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN + 1 else ""
    return ", ".join(names[:_SHOWN] if more else names) + more


def _named(library: str, suite: str) -> str:
    from mlbox.build.ground import package_of

    if package := package_of(library, suite):
        return f"{library} (package {package})"
    return f"{library} (of CUDA)" if brought_by(library) else library


def _refusal(fatal: Sequence[Finding], settings: Settings, lock: Lock) -> BuildError:
    from mlbox.build.ground import package_of

    suite = lock.base.suite
    packages = {package_of(one.name, suite) for one in fatal if one.kind == "missing"} - {""}
    unknown = [one.name for one in fatal if one.kind != "missing" or not package_of(one.name, suite)]
    names = sorted({one.name for one in fatal})
    hints = []
    if packages:
        hints.append(f"[tool.mlbox] system-packages = {_toml(sorted({*settings.system_packages, *packages}))}")
    cuda = [name for name in unknown if brought_by(name)]
    hints += ways_to(cuda, lock.target.python)
    if unknown := [name for name in unknown if name not in cuda]:
        hints.append(f"another version of {', '.join(sorted({one.package for one in fatal if one.name in unknown}))}")
    hints.append(f"allow-missing = {_toml(sorted({*settings.allow_missing, *names}))} when that part is never used")
    return BuildError("; ".join(remarks(fatal, suite)), hint=", or ".join(hints))


def _toml(names: Iterable[str]) -> str:
    return "[" + ", ".join(msgspec.json.encode(name).decode() for name in names) + "]"


def _binaries(store: Store, diff_id: DiffID, lock: Lock) -> tuple["Binary", ...]:
    from mlbox.build.binaries import Binary, read_binaries
    from mlbox.loader import MACHINES

    machine = MACHINES[lock.target.arch][0]
    return _kept(
        store,
        f"layer-{hex_of(diff_id)}-{machine}-{_FORMAT}",
        tuple[Binary, ...],
        lambda: read_binaries(store.layers.root(diff_id), store.layers.entries(diff_id), machine),
    )


def _ground(store: Store, below: Sequence[DiffID], searched: str, lock: Lock) -> Ground:
    def read() -> Ground:
        from mlbox.build.ground import read_ground

        layers = [(store.layers.root(diff_id), Tree(entries=store.layers.entries(diff_id))) for diff_id in below]
        minor = lock.target.glibc.partition(".")[2]
        return read_ground(layers, lock.target.arch, searched, int(minor) if minor.isdigit() else 0)

    return _kept(store, f"ground-{key_of([_FORMAT, below, searched, lock.target])}", Ground, read)


def _driver_stems() -> frozenset[str]:
    from mlbox.gpu.driver import capability_table

    rows = capability_table().values()
    return frozenset(stem for row in rows for stem in (*row.libraries, *row.any_version))


def _kept(store: Store, name: str, kind: type[T], make: Callable[[], T]) -> T:
    """Return what is kept under `name`, else make it and keep it; what is damaged is made again."""
    path = store.home.metadata / "libraries" / name
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.msgpack.decode(path.read_bytes(), type=kind)
    made = make()
    with suppress(OSError, UnicodeEncodeError):  # a store of others, a name that is not UTF-8: it is read again
        write_atomic(path, msgspec.msgpack.encode(made))
    return made
