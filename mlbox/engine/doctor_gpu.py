"""What of a host keeps its GPUs from containers, and what mends it."""

import errno
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlbox.engine.doctor import Finding
from mlbox.gpu import nvml
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.model import DeviceNumber, Inventory, Roots
from mlbox.linux.process import in_user_namespace
from mlbox.units import mega

_LOCKED = 1 << 30
"""Bytes that NCCL and RDMA may want to keep in memory; what less is, they have failed with."""
_LITTLE_SHARED = 1 << 30
_OPEN: Mapping[int, tuple[str, str]] = {
    errno.ENOENT: ("is missing", "nvidia-modprobe -c {minor}"),
    errno.ENXIO: (
        "belongs to no driver: its number is not the one the driver has now",
        "rm {path}, then 'nvidia-modprobe -c {minor}' (-u for uvm)",
    ),
    errno.ENODEV: ("belongs to a driver that is gone", "modprobe nvidia nvidia-uvm"),
    errno.EACCES: ("may not be opened by this user", "chmod 0666 {path}, or NVreg_DeviceFileMode=0666 of the module"),
    errno.EPERM: (
        "is denied by the device rules of the group we are in, as in a container",
        "run mlbox on the host itself, or give this container the GPU",
    ),
    errno.EIO: (
        "does not answer: the GPU has failed",
        "'dmesg | grep Xid' says why; reset it (nvidia-smi -r) or reboot",
    ),
}
"""What it means when a node cannot be opened (open(2)), and what mends it."""


def examine_gpus(roots: Roots | None = None) -> Iterator[Finding]:
    """Look at the GPUs of the host, at their nodes, and at what programs on them want of the host besides."""
    where = roots or Roots()
    answer = nvml.ask(read_inventory(where))
    inventory = answer.inventory
    yield from _inventory(inventory)
    if not inventory.gpus:
        return
    yield from _nodes(inventory)
    yield from _persistence(answer)
    yield from _isolation(where)
    yield from _selinux(where)
    yield from _memory(where)


def _inventory(inventory: Inventory) -> Iterator[Finding]:
    names = [gpu.name + (f", {mega(gpu.memory)}" if gpu.memory else "") for gpu in inventory.gpus]
    driver = f"driver {inventory.driver.version}: " if inventory.driver else ""
    if inventory.driver is None and not names:
        names = ["no NVIDIA driver is loaded"]
    if not inventory.problems:
        yield Finding(subject="GPUs", verdict="ok", text=driver + ("; ".join(names) or "none"))
    for problem in inventory.problems:
        text, _, hint = problem.partition(": ")
        yield Finding(subject="GPUs", verdict="bad" if inventory.gpus else "warn", text=text, hint=hint)


def _nodes(inventory: Inventory) -> Iterator[Finding]:
    """Open every node as a program would: the only way to know."""
    nodes = dict.fromkeys((*(node for gpu in inventory.gpus for node in gpu.nodes), *inventory.shared_nodes))
    failing = [(node, code) for node in nodes if (code := open_error(node.path))]
    for node, code in failing:
        yield _node(node, code)
    if nodes and not failing:
        yield Finding(subject="GPU nodes", verdict="ok", text=f"{len(nodes)} nodes open")


def _node(node: DeviceNumber, code: int) -> Finding:
    text, hint = _OPEN.get(code, (f"cannot be opened: {os.strerror(code)}", "'dmesg' may say why"))
    return Finding(
        subject="GPU nodes",
        verdict="bad",
        text=f"{node.path} {text} ({errno.errorcode.get(code, code)})",
        hint=hint.format(path=node.path, minor=node.minor),
    )


def open_error(path: str) -> int:
    """Return the error with which a node cannot be opened, 0 when it can."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as problem:
        return problem.errno or errno.EIO
    return 0


def _persistence(answer: nvml.Answer) -> Iterator[Finding]:
    off = [gpu.index for gpu in answer.inventory.gpus if gpu.pci in answer.use and not answer.use[gpu.pci].persistent]
    if off:
        yield Finding(
            subject="persistence",
            verdict="warn",
            text=f"off for GPU {', '.join(map(str, off))}: each first program on an idle GPU waits seconds for it",
            hint="nvidia-smi -pm 1, or 'systemctl enable --now nvidia-persistenced'",
        )


def _isolation(roots: Roots) -> Iterator[Finding]:
    if in_user_namespace(roots.proc):
        yield Finding(
            subject="isolation",
            verdict="warn",
            text="in a user namespace the kernel takes no device rules: a container sees only the nodes of its GPUs, "
            "but nothing denies others to it",
            hint="run mlbox as the host's root for rules that are enforced",
        )


def _selinux(roots: Roots) -> Iterator[Finding]:
    try:
        enforcing = Path(roots.sys, "fs/selinux/enforce").read_text().strip() == "1"
    except OSError:
        return
    if enforcing:
        yield Finding(
            subject="SELinux",
            verdict="warn",
            text="enforcing: containers run in the label of who starts them, which its policy may keep from GPUs",
            hint="where it does ('ausearch -m avc -ts recent'): setsebool -P container_use_devices on",
        )


def _memory(roots: Roots) -> Iterator[Finding]:
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if locked != resource.RLIM_INFINITY and locked < _LOCKED:
        yield Finding(
            subject="locked memory",
            verdict="warn",
            text=f"at most {mega(locked)} for each process: NCCL over InfiniBand and pinned memory may want more",
            hint="'ulimit -l unlimited' before mlbox, or LimitMEMLOCK=infinity in the unit that starts it",
        )
    try:
        found = os.statvfs(f"{roots.dev}/shm")
    except OSError:
        return
    if (size := found.f_frsize * found.f_blocks) < _LITTLE_SHARED:
        yield Finding(
            subject="shared memory",
            verdict="warn",
            text=f"the host's own ({roots.dev}/shm) is {mega(size)}: little for programs outside of containers",
            hint="mount -o remount,size=50% /dev/shm; containers have their own, --shm-size sets it",
        )
