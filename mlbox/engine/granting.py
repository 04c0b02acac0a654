"""The devices that containers get: by path, by CDI name, or as GPUs that are leased while they run."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

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
from mlbox.gpu.driver import DEFAULT_CAPABILITIES, driver_files, parse_capabilities
from mlbox.gpu.edits import edits_of, libraries_of
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.leases import FOLDER, Leases, Tenant
from mlbox.gpu.limits import SYSTEM
from mlbox.gpu.model import Inventory, Roots
from mlbox.gpu.nvml import ask
from mlbox.gpu.tables import is_of_data_center
from mlbox.linux import cgroup
from mlbox.oci.image import ContainerConfig
from mlbox.runtime.grant import Grant
from mlbox.runtime.options import RunOptions
from mlbox.runtime.record import Folder, Record

_CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
_RDMA = "/dev/infiniband"


class HostDevices:
    """The devices of this host, for containers of any store."""

    def __init__(
        self,
        roots: Roots | None = None,
        folder: Path = FOLDER,
        say: Callable[[str], None] = lambda _: None,
        limits: Path = SYSTEM,
    ) -> None:
        self._roots = roots or Roots()
        self._leases = Leases(folder)
        self._folder = folder
        self._say = say
        self._limits = limits

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
        inventory = self._inventory(request)
        found = candidates(inventory, request)
        options = record.options
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
        gpus = edits_of(chosen, inventory, capabilities, files, self._roots, params=self._params())
        grant = Grant(edits=edits + gpus, libraries=libraries_of(files), descriptors=descriptors)
        if "compute" in capabilities and all(is_of_data_center(unit.gpu.name) for unit in chosen):
            return msgspec.structs.replace(grant, preferred=partial(lines_in, driver=inventory.driver.version))
        return grant

    def _inventory(self, request: Request) -> Inventory:
        inventory = read_inventory(self._roots)
        # Only NVIDIA's library knows the UUIDs of MIG instances; it is slow to load, so it is asked for nothing else.
        return ask(inventory).inventory if any(name.startswith("MIG-") for name in request.devices) else inventory

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


def _lives(container: str) -> bool:
    return bool(cgroup.processes(Folder(Path(container)).cgroup, cgroup.hierarchies()))


def _devices(options: RunOptions) -> tuple[str, ...]:
    return (*options.devices, *((_RDMA,) if options.rdma else ()))


def capabilities_of(options: RunOptions, config: ContainerConfig) -> tuple[str, ...]:
    """Return what was asked for, else what the image says it needs: libraries only, never another GPU."""
    image = next((line.partition("=")[2] for line in config.env if line.startswith(f"{_CAPABILITIES}=")), "")
    asked = options.gpu_capabilities or options.env.get(_CAPABILITIES, image)
    return parse_capabilities(asked or ",".join(DEFAULT_CAPABILITIES))
