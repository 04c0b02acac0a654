"""What a user may ask of a container, as one value, and the words the command line says it with. Pure."""

import signal as signals
from typing import Literal

import msgspec

from mlbox.errors import UsageError
from mlbox.units import parse_duration as parse_duration

# The limits of setrlimit(2) that OCI runtimes know.
ULIMITS = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)

# Room for hundreds of data loader workers with their threads; a fork bomb ends before the machine does.
PIDS_LIMIT = 32768

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the values here."""


class BindMount(Value, frozen=True, kw_only=True, tag="bind"):
    """A file or folder of the host at `target`.

    With `owner` 'caller', what the container's user writes belongs on the host to whoever asked for
    the container; with 'keep', numbers are the same on both sides.
    """

    source: str
    target: str
    readonly: bool = False
    owner: Literal["caller", "keep"] = "caller"


class TmpfsMount(Value, frozen=True, kw_only=True, tag="tmpfs"):
    """Memory at `target`, at most `size` bytes of it (default: the kernel's, half of all)."""

    target: str
    size: int | None = None
    mode: int = 0o1777
    executable: bool = False


class Ulimit(Value, frozen=True, kw_only=True):
    """A resource limit by its lower-case name ('nofile'); -1 is no limit."""

    name: str
    soft: int
    hard: int


class Restart(Value, frozen=True, kw_only=True):
    """When to start again; `retries` 0 is without end, and counts for 'on-failure' only."""

    policy: Literal["no", "on-failure", "always"] = "no"
    retries: int = 0


class RunOptions(Value, frozen=True, kw_only=True):
    """How a container differs from what its image says; everything left out is the image's or the safe default."""

    name: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    labels: dict[str, str] = {}
    tty: bool = False
    interactive: bool = False
    read_only: bool = False
    mounts: tuple[BindMount | TmpfsMount, ...] = ()
    devices: tuple[str, ...] = ()
    gpus: str = ""
    gpu_capabilities: str = ""
    gpu_wait: bool = False
    gpu_share: bool = False
    gpu_check: bool = True
    rdma: bool = False
    network: Literal["host", "none"] = "host"
    cpus: float | None = None
    memory: int | None = None
    memory_swap: int | None = None
    pids_limit: int = PIDS_LIMIT
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    init: bool = False
    stop_signal: str = ""
    stop_timeout: float = 10.0
    time_limit: float | None = None
    restart: Restart = Restart()
    remove: bool = False
    tied: bool = False
    """Whether it is killed when nobody is connected to it any more."""
    changes: str = ""
    """The folder that gets what it writes, in place of one that goes with it."""
    log_limit: int = 64 << 20

    @property
    def wants_gpus(self) -> bool:
        """Whether --gpus asks for any; which ones, the engine knows."""
        return self.gpus not in ("", "none")

    def __post_init__(self) -> None:
        if self.remove and self.restart.policy != "no":
            raise UsageError("--rm and --restart contradict each other", hint="leave one of them out")


def parse_size(text: str) -> int:
    """Return the bytes that '512m' or '1.5g' means (powers of 1024)."""
    number, unit = text.strip().lower(), ""
    if number.endswith("ib"):
        number = number[:-2]
    elif number.endswith("b") and number[-2:-1].isalpha():
        number = number[:-1]
    if number and number[-1].isalpha():
        number, unit = number[:-1], number[-1]
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = -1
    if size < 0 or not number[:1].isdigit():
        raise UsageError(f"not a size: {text!r}", hint="a number and b, k, m, g or t, like 512m")
    return size


def parse_volume(text: str) -> BindMount:
    """Return the mount that `-v SOURCE:TARGET[:ro|rw][,keep-owner]` asks for."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0]:
        raise UsageError(f"not a volume: {text!r}", hint="-v SOURCE:TARGET, or SOURCE:TARGET:ro")
    words = parts[2].split(",") if len(parts) == 3 else []
    if unknown := set(words) - {"ro", "rw", "keep-owner"}:
        raise UsageError(
            f"volume {text!r}: unknown option {sorted(unknown)[0]!r}", hint="known are ro, rw and keep-owner"
        )
    return BindMount(
        source=parts[0],
        target=_target(parts[1]),
        readonly="ro" in words,
        owner="keep" if "keep-owner" in words else "caller",
    )


def parse_mount(text: str) -> BindMount | TmpfsMount:
    """Return the mount that `--mount type=bind,source=A,target=B[,readonly]` or `type=tmpfs,target=B` asks for."""
    fields: dict[str, str] = {}
    for item in text.split(","):
        key, _, value = item.partition("=")
        key = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}.get(key, key)
        if key not in ("type", "source", "target", "readonly", "owner", "tmpfs-size", "tmpfs-mode") or key in fields:
            raise UsageError(f"mount {text!r}: unknown or repeated key {key!r}")
        fields[key] = value
    target = _target(fields.get("target", ""))
    if fields.get("type", "bind") == "tmpfs":
        size = parse_size(fields["tmpfs-size"]) if "tmpfs-size" in fields else None
        return TmpfsMount(target=target, size=size, mode=_octal(fields.get("tmpfs-mode", "1777")))
    if fields.get("type", "bind") != "bind" or not fields.get("source"):
        raise UsageError(f"mount {text!r}: wants type=bind with a source, or type=tmpfs")
    return BindMount(
        source=fields["source"],
        target=target,
        readonly=fields.get("readonly", "false") in ("", "true", "1"),
        owner="keep" if fields.get("owner") == "keep" else "caller",
    )


def parse_tmpfs(text: str) -> TmpfsMount:
    """Return the mount that `--tmpfs TARGET[:size=64m,mode=700,exec]` asks for."""
    target, _, words = text.partition(":")
    size, mode, executable = None, 0o1777, False
    for word in filter(None, words.split(",")):
        key, _, value = word.partition("=")
        if key == "size":
            size = parse_size(value)
        elif key == "mode":
            mode = _octal(value)
        elif key == "exec":
            executable = True
        elif key not in ("noexec", "rw"):
            raise UsageError(f"tmpfs {text!r}: unknown option {key!r}", hint="known are size, mode and exec")
    return TmpfsMount(target=_target(target), size=size, mode=mode, executable=executable)


def parse_ulimit(text: str) -> Ulimit:
    """Return the limit that `--ulimit nofile=1024[:2048]` asks for."""
    name, _, numbers = text.partition("=")
    soft, _, hard = numbers.partition(":")
    try:
        low = -1 if soft == "unlimited" else int(soft)
        high = low if not hard else -1 if hard == "unlimited" else int(hard)
    except ValueError:
        low = high = -2
    if name not in ULIMITS or min(low, high) < -1 or (high != -1 and (low > high or low == -1)):
        raise UsageError(f"not a limit: {text!r}", hint="--ulimit NAME=SOFT[:HARD], like nofile=1024:4096")
    return Ulimit(name=name, soft=low, hard=high)


def parse_restart(text: str) -> Restart:
    """Return the policy that `--restart no|always|on-failure[:N]` names."""
    policy, colon, retries = text.partition(":")
    if text == "no":
        return Restart()
    if text == "always":
        return Restart(policy="always")
    if policy != "on-failure" or (colon and not (retries.isascii() and retries.isdigit())):
        raise UsageError(f"not a restart policy: {text!r}", hint="no, always, on-failure or on-failure:5")
    return Restart(policy="on-failure", retries=int(retries or 0))


def parse_signal(text: str) -> int:
    """Return the number of a signal said as 'TERM', 'SIGTERM', '15' or 'RTMIN+3'."""
    name = text.strip().upper()
    if name.isascii() and name.isdigit() and 0 < int(name) < signals.NSIG:
        return int(name)
    base, plus, offset = name.removeprefix("SIG").partition("+")
    try:
        number = int(signals.Signals[f"SIG{base}"]) + (int(offset) if plus and base == "RTMIN" else 0)
    except (KeyError, ValueError):
        number = 0
    if not 0 < number < signals.NSIG or (plus and base != "RTMIN"):
        raise UsageError(f"no such signal: {text[:40]!r}", hint="a name like TERM or a number like 15")
    return number


def _target(path: str) -> str:
    parts = path.split("/")
    if not path.startswith("/") or ".." in parts or not any(part not in ("", ".") for part in parts):
        raise UsageError(f"not a place to mount at: {path!r}", hint="an absolute path other than / and without '..'")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def _octal(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise UsageError(f"not a mode: {text!r}", hint="octal digits, like 1777")
    return mode
