"""What whoever called may have of the GPUs: by lease, and not around it."""

import os
import pwd
from pathlib import Path

from mlbox.cdi import ContainerEdits, DeviceNode
from mlbox.errors import ContainerError
from mlbox.gpu.choose import units
from mlbox.gpu.inventory import read_inventory
from mlbox.gpu.limits import SYSTEM, Limits, check, limits_of
from mlbox.gpu.model import Roots
from mlbox.linux.device import node
from mlbox.runtime.containers import caller_of
from mlbox.runtime.options import RunOptions
from mlbox.runtime.record import Account


def user_of(caller: Account | None) -> str:
    """Return the name of who called through sudo, else ours; a number where it has none."""
    uid = caller[0] if caller else os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def user_now() -> str:
    """Return for whom this command works."""
    return user_of(caller_of(os.environ))


def allowed(options: RunOptions, user: str, count: int, path: Path = SYSTEM) -> Limits:
    """Return what `user` may have; raises ContainerError when `count` GPUs with these options are more."""
    limits = limits_of(user, path)
    check(limits, user, count=count, seconds=options.time_limit, share=options.gpu_share)
    return limits


def refuse_nodes(edits: ContainerEdits, user: str, path: Path = SYSTEM, roots: Roots | None = None) -> None:
    """Raise ContainerError when `edits` give a GPU's node to a user with limits, who would have it without a lease."""
    if not edits.device_nodes:
        return
    limits = limits_of(user, path)
    if limits.gpus is None and limits.time is None and limits.share:
        return
    gpus = {(one.major, one.minor) for unit in units(read_inventory(roots)) for one in unit.nodes}
    for one in edits.device_nodes:
        if _number(one) in gpus:
            raise ContainerError(
                f"{user} may not have GPUs by their nodes ({one.path})", hint=f"--gpus leases them; {path} says so"
            )


def _number(one: DeviceNode) -> tuple[int | None, int | None]:
    if one.major is not None:
        return one.major, one.minor
    try:
        found = node(one.host_path or one.path)
    except OSError:
        return None, None
    return (found.major, found.minor) if found else (None, None)
