"""The devices that containers get: by path, by CDI name, or as GPUs that are leased while they run."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlbox.cdi import ContainerEdits
from mlbox.engine.allowance import allowed, refuse_nodes, user_now, user_of
from mlbox.engine.arch import host_arch
from mlbox.engine.devices import edits_for
from mlbox.engine.gpus import in_use
from mlbox.errors import ContainerError
from mlbox.files import write_atomic
from mlbox.gpu.choose import Request, Unit, candidates, parse_request
from mlbox.gpu.compat import lines_in
from mlbox.gpu.driver import DEFAULT_CAPABILITIES, driver_files, parse_capabilities, without_compat32
from mlbox.gpu.edits import TARGET, edits_of, libraries_of
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.leases import FOLDER, Leases, Tenant
from mlbox.gpu.limits import SYSTEM
from mlbox.gpu.model import Inventory, Roots
from mlbox.gpu.nvml import ask, with_mig_modes
from mlbox.gpu.tables import can_be_divided, is_of_data_center
from mlbox.linux import cgroup
from mlbox.linux.mig import in_mig_mode
from mlbox.linux.process import in_user_namespace
from mlbox.oci.digest import Digest
from mlbox.oci.image import ContainerConfig
from mlbox.runtime.grant import Grant
from mlbox.runtime.options import BindMount, RunOptions
from mlbox.runtime.record import Folder, Record

if TYPE_CHECKING:
    from mlbox.store.store import Store

_CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
TARGETS = (TARGET, "/opt/mlbox/nvidia", "/run/mlbox/nvidia")
"""Where the driver's libraries may lie: where no folder of the user's is mounted."""
_CACHE = "/etc/ld.so.cache"
_RDMA = "/dev/infiniband"


class HostDevices:
    """The devices of this host, for containers of any store."""

    def __init__(
        self,
        roots: Roots | None = None,
        folder: Path = FOLDER,
        say: Callable[[str], None] = lambda _: None,
        limits: Path = SYSTEM,
        store: Callable[[], "Store"] | None = None,
    ) -> None:
        """`store` opens the store of the containers' images; without it any GPU is given to any of them."""
        self._roots = roots or Roots()
        self._leases = Leases(folder)
        self._folder = folder
        self._say = say
        self._limits = limits
        self._store = store

    def check(self, options: RunOptions) -> None:
        """Raise ContainerError for a device or GPU that this host does not have, held or not."""
        user = user_now()
        refuse_nodes(edits_for(_devices(options)), user, self._limits, self._roots)
        if options.gpu_capabilities:
            parse_capabilities(options.gpu_capabilities)
        if request := parse_request(options.gpus):
            found = candidates(self._inventory(request), request)
            allowed(options, user, request.count or len(found), self._limits)

    def grant(self, record: Record) -> Grant:
        """Return the devices of a container that starts, its GPUs leased; waits for them where that was asked for."""
        options = record.options
        edits = edits_for(_devices(options))
        refuse_nodes(edits, user_of(record.caller), self._limits, self._roots)
        request = parse_request(options.gpus)
        return self._with_gpus(record, request, edits) if request else Grant(edits=edits)

    def _with_gpus(self, record: Record, request: Request, edits: ContainerEdits) -> Grant:
        if in_user_namespace(self._roots.proc):
            self._say("in a user namespace nothing enforces device rules: only which GPUs are seen is isolated")
        inventory = self._inventory(request)
        options = record.options
        found = self._fitting(record, request, inventory)
        user = user_of(record.caller)
        limits = allowed(options, user, request.count or len(found), self._limits)
        tenant = Tenant(
            container=record.id,
            name=record.name,
            user=user,
            seconds=options.time_limit,
            shared=options.gpu_share,
        )
        lease = self._leases.take(
            found,
            request,
            tenant,
            busy=lambda: in_use(found),
            lives=_lives,
            wait=options.gpu_wait,
            say=self._say,
            most=limits.gpus,
            priority=limits.priority,
        )
        try:
            return self._grant(record, inventory, lease.units, edits, lease.descriptors)
        except BaseException:
            lease.close()
            raise

    def _fitting(self, record: Record, request: Request, inventory: Inventory) -> tuple[Unit, ...]:
        """Return what may be given: of a number of GPUs, those that the image has code for."""
        found = candidates(inventory, request)
        if self._store is None or not record.options.gpu_check or not request.count or _are_alike(found):
            return found
        from mlbox.engine.checking import fitting

        chosen = fitting(self._store(), Digest(record.image_digest), request, inventory, found)
        for line in chosen.left_out:
            self._say(f"left out: {line}")
        return chosen.units

    def _grant(
        self,
        record: Record,
        inventory: Inventory,
        chosen: Sequence[Unit],
        edits: ContainerEdits,
        descriptors: tuple[int, ...],
    ) -> Grant:
        capabilities = capabilities_of(record.options, record.config)
        if inventory.driver is None or all(unit.gpu.vendor != "nvidia" for unit in chosen):
            gpus = edits_of(chosen, inventory, capabilities, None, self._roots)
            return Grant(edits=edits + gpus, descriptors=descriptors)
        version = inventory.driver.library_version
        if version is None:
            raise ContainerError("the driver's libraries are not on this host", hint="'mlbox doctor' says more")
        if version != inventory.driver.version:
            raise ContainerError(
                f"the driver's libraries are {version}, its kernel module is {inventory.driver.version}, "
                "so no program would find a GPU",
                hint="reboot, or stop what uses the GPUs and reload the module",
            )
        files = driver_files(version, capabilities, host_arch(), self._roots)
        binds = [one for one in record.options.mounts if isinstance(one, BindMount)]
        target = next((one for one in TARGETS if not covering(one, binds)), TARGETS[0])
        gpus = edits_of(chosen, inventory, capabilities, files, self._roots, params=self._params(), target=target)
        mounts = edits + without_new_files(gpus, binds, self._say)
        if _is_missing(_CACHE, binds):  # the loader's cache has no place either, so the libraries are named to it
            searched = ContainerEdits(env=(f"LD_LIBRARY_PATH={_searched(record, target)}",))
            return Grant(edits=mounts + searched, descriptors=descriptors)
        grant = Grant(edits=mounts, libraries=libraries_of(files, target), descriptors=descriptors)
        if "compute" in capabilities and all(is_of_data_center(unit.gpu.name) for unit in chosen):
            return msgspec.structs.replace(grant, preferred=partial(lines_in, driver=inventory.driver.version))
        return grant

    def _inventory(self, request: Request) -> Inventory:
        inventory = read_inventory(self._roots)
        # Only NVIDIA's library knows UUIDs of MIG instances and the mode of who has none; it is slow to load.
        if any(name.startswith("MIG-") for name in request.devices):
            return ask(inventory).inventory
        # Where the driver is not this host's own, as in tests, its library is not either.
        undivided = [gpu.pci for gpu in inventory.gpus if not gpu.mig and can_be_divided(gpu.name)]
        asked = inventory.driver is not None and undivided and self._roots.driver == "/"
        return with_mig_modes(inventory, in_mig_mode(undivided)) if asked else inventory

    def _params(self) -> str:
        """Return a copy of the driver's parameters that forbids to make device nodes, '' where there are none."""
        try:
            text = Path(self._roots.proc, "driver/nvidia/params").read_text()
        except OSError:
            return ""
        path = self._folder / "params"
        data = text.replace("ModifyDeviceFiles: 1", "ModifyDeviceFiles: 0").encode()
        if not path.is_file() or path.read_bytes() != data:  # writing waits for the disk, at every start
            write_atomic(path, data)
        return str(path)


def covering(path: str, binds: Sequence[BindMount]) -> BindMount | None:
    """Return the mount of the user's in which `path` would lie, None for none: what is made there is on the host."""
    found = [one for one in binds if path == one.target or path.startswith(one.target.rstrip("/") + "/")]
    return max(found, key=lambda one: len(one.target), default=None)


def without_new_files(edits: ContainerEdits, binds: Sequence[BindMount], say: Callable[[str], None]) -> ContainerEdits:
    """Return `edits` without the mounts for which a file would have to be made in a folder of the host."""
    left = []
    for mount in edits.mounts:
        if place := _is_missing(mount.container_path, binds):
            say(f"{mount.container_path} of the driver is left out: it would be made at {place}")
        else:
            left.append(mount)
    return msgspec.structs.replace(edits, mounts=tuple(left))


def _is_missing(path: str, binds: Sequence[BindMount]) -> Path | None:
    """Return where on the host `path` would have to be made, None when it is there or not in a folder of the user's."""
    bind = covering(path, binds)
    place = Path(bind.source, path[len(bind.target) :].lstrip("/")) if bind else None
    return place if place is not None and not place.exists() else None


def _searched(record: Record, target: str) -> str:
    """Return LD_LIBRARY_PATH with `target` before what the container has there."""
    image = dict(line.partition("=")[::2] for line in record.config.env)
    own = {**image, **record.options.env}.get("LD_LIBRARY_PATH", "")
    return f"{target}:{own}" if own else target


def _are_alike(found: Sequence[Unit]) -> bool:
    """Whether what fits one of them fits all, as was checked when the container was made."""
    return len({(unit.gpu.vendor, unit.gpu.name) for unit in found}) == 1


def _lives(container: str) -> bool:
    return bool(cgroup.processes(Folder(Path(container)).cgroup, cgroup.hierarchies()))


def _devices(options: RunOptions) -> tuple[str, ...]:
    return (*options.devices, *((_RDMA,) if options.rdma else ()))


def capabilities_of(options: RunOptions, config: ContainerConfig) -> tuple[str, ...]:
    """Return what was asked for, else what the image says it needs: libraries only, never another GPU."""
    image = next((line.partition("=")[2] for line in config.env if line.startswith(f"{_CAPABILITIES}=")), "")
    asked = options.gpu_capabilities or without_compat32(options.env.get(_CAPABILITIES, image))
    return parse_capabilities(asked or ",".join(DEFAULT_CAPABILITIES))
