"""What must be there before a container's program starts: its mounts, its /etc, its OCI bundle."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlbox.errors import ContainerError
from mlbox.oci.runtime import Box, Spec
from mlbox.runtime import rootfs
from mlbox.runtime.account import Account, resolve_account
from mlbox.runtime.host import host_facts
from mlbox.runtime.options import BindMount, TmpfsMount
from mlbox.runtime.record import Folder, Record
from mlbox.runtime.spec import Place, hostname, make_spec

if TYPE_CHECKING:
    from mlbox.runtime.grant import Grant

Warn = Callable[[str], None]


def prepare(folder: Folder, record: Record, grant: "Grant | None", size: tuple[int, int] | None, warn: Warn) -> None:
    """Mount what the container stands on, in a mount namespace of this process, and write its bundle.

    `size` is its terminal's (rows, columns). Raises ContainerError for what cannot be mounted.
    """
    rootfs.enter_private_mounts()
    binds = _binds(folder, record)
    lower = [Path(path) for path in record.lower]
    changes, remove = record.options.changes, record.options.remove
    upper = Path(changes) if changes else folder.upper
    rootfs.mount_overlay(lower, upper, folder.work, folder.rootfs, volatile=remove, plain=bool(changes))
    user = record.options.user or record.config.user
    account = resolve_account(user, lambda path: rootfs.read_in(folder.rootfs, path))
    mounts = tuple(
        _settled(binds[one.target], account, record, warn) if isinstance(one, BindMount) else one
        for one in record.options.mounts
    )
    spec = _spec(folder, record, account, mounts, size)
    if grant:
        spec = _granted(spec, folder, grant, warn)
    folder.write("bundle/config.json", msgspec.json.encode(spec))


def _binds(folder: Folder, record: Record) -> dict[str, rootfs.Bind]:
    found = {}
    for number, one in enumerate(record.options.mounts):
        if isinstance(one, BindMount):
            try:
                found[one.target] = rootfs.Bind(one, folder.binds / str(number))
            except OSError as problem:
                raise ContainerError(f"cannot mount {one.source}: {problem.strerror}") from problem
    return found


def _settled(bind: rootfs.Bind, account: Account, record: Record, warn: Warn) -> BindMount:
    one = bind.settle((account.uid, account.gid), record.caller)
    if bind.warning:
        warn(bind.warning)
    return one


def _spec(
    folder: Folder,
    record: Record,
    account: Account,
    mounts: tuple[BindMount | TmpfsMount, ...],
    size: tuple[int, int] | None,
) -> Spec:
    host = host_facts()
    _write_etc(folder, hostname(record.options, host, record.id), of_host=record.options.network == "host")
    return make_spec(
        record.config,
        msgspec.structs.replace(record.options, mounts=mounts),
        host,
        Place(rootfs=str(folder.rootfs), folder=str(folder.path), cgroup=folder.cgroup),
        id=record.id,
        account=account,
        profile=record.seccomp,
        size=Box(height=size[0], width=size[1]) if size else None,
    )


def _granted(spec: Spec, folder: Folder, grant: "Grant", warn: Warn) -> Spec:
    from mlbox.cdi import apply
    from mlbox.linux import device
    from mlbox.runtime.libraries import loader_mount

    edits = grant.edits
    if grant.libraries:
        libraries = (*grant.libraries, *grant.preferred(folder.rootfs))
        edits += loader_mount(folder, libraries, warn)
    return apply(edits, spec, device.node)


def _write_etc(folder: Folder, name: str, *, of_host: bool) -> None:
    own = f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {name}\n".encode()
    hosts, resolv = own, b""
    if of_host:
        hosts, resolv = _read("/etc/hosts") or own, _read("/etc/resolv.conf")
        if name.encode() not in hosts.split():
            # torch.distributed and MPI look up their own name.
            hosts = hosts.rstrip(b"\n") + f"\n127.0.1.1 {name}\n".encode()
    for file, data in (("hosts", hosts), ("hostname", f"{name}\n".encode()), ("resolv.conf", resolv)):
        folder.write(file, data)
        os.chmod(folder.path / file, 0o644)  # noqa: PTH101


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
