"""What of a host keeps mlbox from working, and what mends it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.errors import MlboxError
from mlbox.paths import Home
from mlbox.units import mega

_LITTLE_SPACE = 10 * 10**9


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one subject."""

    subject: str
    verdict: Literal["ok", "warn", "bad"]
    text: str
    hint: str = ""


def examine(home: Home) -> list[Finding]:
    """Look at everything mlbox needs; nothing is changed but probe files of the store."""
    checks: tuple[Callable[[Home], Iterator[Finding]], ...] = (_user, _store, _runtime, _kernel, _debian, _git, _gpus)
    return [finding for check in checks for finding in check(home)]


def _user(home: Home) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding(subject="user", verdict="ok", text="root")
    else:
        yield Finding(
            subject="user",
            verdict="bad",
            text="locking and planning work, building and running containers need root",
            hint="run mlbox with sudo",
        )


def _store(home: Home) -> Iterator[Finding]:
    folder = next(parent for parent in (home.root, *home.root.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    verdict: Literal["ok", "warn", "bad"] = "bad" if not writable else "warn" if free < _LITTLE_SPACE else "ok"
    hint = {"bad": "set MLBOX_HOME to a folder you may write", "warn": "'mlbox prune' makes room", "ok": ""}[verdict]
    text = f"{home.root}, {mega(free)} free" + ("" if writable else ", not writable")
    yield Finding(subject="store", verdict=verdict, text=text, hint=hint)


def _runtime(home: Home) -> Iterator[Finding]:
    from mlbox.runtime.oci_runtime import find_runtime

    try:
        runtime = find_runtime(home)
    except MlboxError as problem:
        yield Finding(subject="OCI runtime", verdict="bad", text=problem.message, hint=problem.hint or "")
    else:
        yield Finding(subject="OCI runtime", verdict="ok", text=f"{runtime.path}")


def _kernel(home: Home) -> Iterator[Finding]:
    release = os.uname().release
    if "overlay" in Path("/proc/filesystems").read_text():
        yield Finding(subject="overlayfs", verdict="ok", text=f"kernel {release}")
    else:
        yield Finding(
            subject="overlayfs", verdict="bad", text=f"kernel {release} does not have it", hint="modprobe overlay"
        )
    controllers = Path("/proc/self/cgroup").read_text().count("\n")
    kind = "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else f"v1, {controllers} hierarchies"
    yield Finding(subject="cgroups", verdict="ok", text=kind)


def _debian(home: Home) -> Iterator[Finding]:
    from mlbox.lock.debian import read_mirrors

    try:
        read_mirrors()
    except MlboxError as problem:
        yield Finding(subject="Debian mirror", verdict="bad", text=problem.message, hint=problem.hint or "")
    else:
        yield Finding(subject="Debian mirror", verdict="ok", text="configured")


def _gpus(home: Home) -> Iterator[Finding]:
    from mlbox.engine.doctor_gpu import examine_gpus

    yield from examine_gpus()


def _git(home: Home) -> Iterator[Finding]:
    if shutil.which("git"):
        yield Finding(subject="git", verdict="ok", text="installed")
    else:
        yield Finding(
            subject="git",
            verdict="warn",
            text="not installed: requirements that name a git repository cannot be locked",
            hint="apt-get install git",
        )
