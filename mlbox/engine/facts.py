"""What explanations of failures need to know of a container and of this host. A fact that is not known is ''."""

import pwd
import resource
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import msgspec

from mlbox.engine.facts_host import OF_HOST, HostFacts, yes
from mlbox.engine.facts_image import ImageFacts
from mlbox.errors import MlboxError
from mlbox.gpu.failures import Xid, failure_table
from mlbox.gpu.model import Roots
from mlbox.oci.runtime import Spec
from mlbox.runtime.containers import Containers
from mlbox.runtime.host import host_facts
from mlbox.runtime.options import BindMount
from mlbox.runtime.record import Container
from mlbox.runtime.spec import stop_signal
from mlbox.store.store import Store
from mlbox.units import mega

_UNLIMITED = 2**63


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What failed. Without a container only the host can be asked."""

    containers: Containers
    container: Container | None = None
    spec: Spec | None = None
    """What it ran by, None when that is gone with it."""
    exit_code: int | None = None
    oom_killed: bool = False
    timed_out: bool = False
    roots: Roots = Roots()


class Facts:
    """Answers `mlbox.gpu.failures.explain`, looking only at what it is asked for."""

    def __init__(self, subject: Subject, store: Store | None) -> None:
        self._subject = subject
        self._host = HostFacts(subject.roots, subject.containers.home.root)
        self._image = ImageFacts(store, subject.container.record if subject.container else None, subject.roots)

    def __call__(self, name: str, groups: Mapping[str, str]) -> str:
        """Return the fact, '' when it cannot be known here."""
        with suppress(OSError, MlboxError, ValueError):
            if name in _OF_LINES:
                return _OF_LINES[name](self, groups)
            if name in _OF_IMAGES:
                return _OF_IMAGES[name](self._image, groups)
            if name in OF_HOST:
                return OF_HOST[name](self._host)
            if name in _OF_CONTAINERS:
                container = self._subject.container
                return _OF_CONTAINERS[name](self, container) if container else ""
        return ""

    # The container.

    def _visible(self, container: Container) -> str:
        image = dict(line.partition("=")[::2] for line in container.record.config.env)
        return container.record.options.env.get("CUDA_VISIBLE_DEVICES", image.get("CUDA_VISIBLE_DEVICES", ""))

    def _given(self, container: Container) -> str:
        options = container.record.options
        return "" if options.devices else options.gpus or "none"

    def _capabilities(self, container: Container) -> str:
        from mlbox.engine.granting import capabilities_of

        if not container.record.options.wants_gpus:
            return ""
        return ",".join(capabilities_of(container.record.options, container.record.config))

    def _device_problems(self, container: Container) -> str:
        from mlbox.engine.devices import verify

        return "; ".join(verify(self._subject.containers, container.id).problems)

    def _device_warning(self, container: Container) -> str:
        found = [note for note in container.state.warnings if note.startswith("its device rules were changed")]
        return found[-1].partition(": ")[2] if found else ""

    def _shm(self, container: Container) -> int:
        mounts = self._subject.spec.mounts if self._subject.spec else ()
        for mount in mounts:
            if mount.destination == "/dev/shm":  # noqa: S108 - where programs look
                return int(next((word[5:] for word in mount.options if word.startswith("size=")), "unknown"))
        options = container.record.options
        return options.shm_size or (options.memory or host_facts().memory) // 2

    def _shm_twice(self, container: Container) -> str:
        """Return twice as much, '' when there is no memory for it."""
        wanted = 2 * self._shm(container)
        return _as_option(wanted) if wanted < (container.record.options.memory or host_facts().memory) else ""

    def _limit(self, name: str) -> int | None:
        """Return a soft limit of the container, None when it has none or it is not known."""
        spec_process = self._subject.spec.process if self._subject.spec else None
        limits = {one.type: one.soft for one in spec_process.rlimits} if spec_process else {}
        soft = limits.get(f"RLIMIT_{name}")
        return None if soft is None or soft >= _UNLIMITED else soft

    def _memlock(self, container: Container) -> str:
        soft = self._limit("MEMLOCK")
        return "" if soft is None else mega(soft)

    def _memlock_host(self, container: Container) -> str:
        soft, most = self._limit("MEMLOCK"), resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        return "" if soft is None else "more" if most == -1 or most > soft else "less"

    def _open_files(self, container: Container) -> str:
        soft = self._limit("NOFILE")
        return "" if soft is None else str(soft)

    def _open_files_most(self, container: Container) -> str:
        soft, most = self._limit("NOFILE"), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return str(most) if soft is not None and most > soft else ""

    def _holders(self) -> tuple[str, str, str]:
        """Return who else holds memory of the container's GPUs, whether that is known, and how much they have."""
        from mlbox.engine.gpus import look

        linux = self._subject.spec.linux if self._subject.spec else None
        container = self._subject.container
        given = {(node.major, node.minor) for node in (linux.devices if linux else ())}
        states = [
            state
            for state in look(self._subject.containers, self._subject.roots).gpus
            if any((node.major, node.minor) in given for node in state.gpu.nodes if not node.path.endswith("/kfd"))
        ]
        others = {
            f"{one.container or f'{one.user}: {one.name}'} ({one.pid}, {mega(one.memory)})"
            for state in states
            for one in state.holders
            if one.memory and container and one.container != container.name
        }
        known = bool(states) and all(state.use is not None for state in states)
        sizes = {mega(state.gpu.memory) for state in states if state.gpu.memory}
        return ", ".join(sorted(others)), yes(known) if known else "", ", ".join(sorted(sizes))

    @cached_property
    def holders(self) -> tuple[str, str, str]:
        """Who else holds memory of the container's GPUs, whether that is known, and how much they have."""
        return self._holders()

    # What a line names.

    def _mount(self, groups: Mapping[str, str]) -> tuple[BindMount, Path] | None:
        """Return the mount that the denied path lies in, and where on the host that is."""
        container, denied = self._subject.container, _denied(groups)
        binds = [one for one in container.record.options.mounts if isinstance(one, BindMount)] if container else []
        inside = [one for one in binds if f"{denied}/".startswith(f"{one.target}/")]
        if not inside or ".." in denied.split("/"):
            return None
        bind = max(inside, key=lambda one: len(one.target))
        path = Path(bind.source) / denied[len(bind.target) :].lstrip("/")
        while not path.exists() and path != path.parent:
            path = path.parent
        return bind, path

    def _mount_source(self, groups: Mapping[str, str]) -> str:
        found = self._mount(groups)
        return str(found[1]) if found else ""

    def _mount_owner(self, groups: Mapping[str, str]) -> str:
        found = self._mount(groups)
        status = found[1].stat() if found else None
        return f"{status.st_uid}:{status.st_gid}" if status else ""

    def _mount_mode(self, groups: Mapping[str, str]) -> str:
        found = self._mount(groups)
        return f"{found[1].stat().st_mode & 0o7777:o}" if found else ""

    def _mount_readonly(self, groups: Mapping[str, str]) -> str:
        found = self._mount(groups)
        return yes(found[0].readonly) if found else ""

    def _root_readonly(self, groups: Mapping[str, str]) -> str:
        container = self._subject.container
        return yes(container.record.options.read_only) if container and not self._mount(groups) else ""


def _as_option(size: int) -> str:
    """Return a size as options take it, in powers of 1024, rounded up."""
    return f"{-(-size // 2**30)}g" if size >= 4 * 2**30 else f"{-(-size // 2**20)}m"


def _memory_twice(limit: int) -> str:
    return _as_option(2 * limit) if 2 * limit < host_facts().memory else ""


def _denied(groups: Mapping[str, str]) -> str:
    return groups.get("path") or groups.get("other", "")


def _port(groups: Mapping[str, str]) -> str:
    return groups.get("port") or groups.get("store_port") or groups.get("old_port", "")


def _xid(groups: Mapping[str, str]) -> Xid:
    return failure_table().xid.get(groups["xid"]) or Xid(cause="", fix="")


def _user(container: Container) -> str:
    user = container.record.options.user or container.record.config.user
    if user or not (caller := container.record.caller):
        return user or "root"
    with suppress(KeyError):
        return f"root, which is {pwd.getpwuid(caller[0]).pw_name} on the host"
    return "root"


_OF_CONTAINERS: dict[str, Callable[[Facts, Container], str]] = {
    "name": lambda _, container: container.name,
    "oom_killed": lambda facts, _: yes(facts._subject.oom_killed),
    "timed_out": lambda facts, _: yes(facts._subject.timed_out),
    "memory": lambda _, container: (
        mega(container.record.options.memory or 0) if container.record.options.memory else ""
    ),
    "memory_limited": lambda _, container: yes(bool(container.record.options.memory)),
    "memory_twice": lambda _, container: _memory_twice(container.record.options.memory or 0),
    "stop_timeout": lambda _, container: f"{container.record.options.stop_timeout:g}",
    "stop_signal": lambda _, one: signal.Signals(stop_signal(one.record.config, one.record.options)).name,
    "network": lambda _, container: container.record.options.network,
    "given_gpus": Facts._given,
    "capabilities": Facts._capabilities,
    "cuda_visible": Facts._visible,
    "device_problems": Facts._device_problems,
    "device_warning": Facts._device_warning,
    "shm": lambda facts, container: mega(facts._shm(container)),
    "shm_twice": Facts._shm_twice,
    "memlock": Facts._memlock,
    "memlock_host": Facts._memlock_host,
    "nofile": Facts._open_files,
    "nofile_most": Facts._open_files_most,
    "gpu_holders": lambda facts, _: facts.holders[0],
    "gpu_holders_known": lambda facts, _: facts.holders[1],
    "gpu_memory": lambda facts, _: facts.holders[2],
    "user": lambda _, container: _user(container),
}
_OF_LINES: dict[str, Callable[[Facts, Mapping[str, str]], str]] = {
    "container": lambda facts, _: yes(facts._subject.container is not None),
    "denied": lambda _, groups: _denied(groups),
    "mount_source": Facts._mount_source,
    "mount_owner": Facts._mount_owner,
    "mount_mode": Facts._mount_mode,
    "mount_readonly": Facts._mount_readonly,
    "root_readonly": Facts._root_readonly,
    "taken": lambda _, groups: _port(groups),
    "port_holder": lambda facts, groups: facts._host.port_holder(int(_port(groups))),
    "package": lambda _, groups: failure_table().packages.get(groups.get("library", ""), ""),
    "distribution": lambda _, groups: failure_table().modules.get(groups.get("module", ""), ""),
    "xid_cause": lambda _, groups: _xid(groups).cause,
    "xid_fix": lambda _, groups: _xid(groups).fix,
}
_OF_IMAGES: dict[str, Callable[[ImageFacts, Mapping[str, str]], str]] = {
    "unfit": lambda image, _: image.unfit[0],
    "unfit_fix": lambda image, _: image.unfit[1],
    "locked_accelerator": lambda image, _: image.lock.target.accelerator if image.lock else "",
    "glibc": lambda image, _: image.lock.target.glibc if image.lock else "",
    "module_locked": lambda image, groups: image.module_locked(groups["module"]),
    "module_folder": lambda image, groups: image.module_folder(groups["module"]),
}
KNOWN = frozenset({*OF_HOST, *_OF_CONTAINERS, *_OF_LINES, *_OF_IMAGES})
"""The names of all facts."""
