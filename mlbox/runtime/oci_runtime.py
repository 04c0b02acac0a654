"""The OCI runtime that makes the namespaces: runc or crun, found and probed on the host."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from mlbox.codec import canonical_json
from mlbox.errors import ContainerError, ProcessError
from mlbox.linux import cgroup
from mlbox.paths import Home
from mlbox.runtime.host import find_program

# Python ignores the first, a monitor the others; a program must not begin with that.
_DEFAULT_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_HINT = "apt-get install runc"


class OciRuntime(Protocol):
    """Runs bundles. `root` is a folder of its own for each container: removing it, once the program and its control
    group are gone, is how the runtime forgets the container, at a tenth of what asking it would cost.
    """

    name: str

    def run(
        self, root: Path, bundle: Path, id: str, lock: int, *, console: str = "", stdio: Sequence[int] = ()
    ) -> tuple[int, int]:
        """Create and start `id`, detached; return the runtime's own wait status and the container's pid (0: none).

        Its program's standard files are `stdio`, or a terminal sent to the socket `console`. The runtime, and not
        the program, keeps the file `lock` open as long as it is at work.
        """

    def exec(self, root: Path, id: str, process: Path, *, stdio: Sequence[int], detach: bool = False) -> int:
        """Start one more process in `id`, described in the file `process`; return a child to wait for.

        The child ends as the process does, or with `detach` once the process runs. Its log is `process`.log.
        """


class Runc:
    """runc, and crun, which takes the same command line."""

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name

    def run(
        self, root: Path, bundle: Path, id: str, lock: int, *, console: str = "", stdio: Sequence[int] = ()
    ) -> tuple[int, int]:
        """Create and start; see OciRuntime."""
        pid_file = bundle / "pid"
        argv = [*self._argv(root), "run", "--detach", "--bundle", str(bundle), "--pid-file", str(pid_file)]
        if console:
            argv += ["--console-socket", console]
        status = os.waitpid(_spawn([*argv, id], stdio, lock), 0)[1]
        pid = int(pid_file.read_text()) if status == 0 else 0
        return status, pid

    def exec(self, root: Path, id: str, process: Path, *, stdio: Sequence[int], detach: bool = False) -> int:
        """Start one more process; see OciRuntime."""
        argv = [*self._argv(root, process), "exec", "--process", str(process)]
        return _spawn([*argv, *(["--detach"] if detach else []), id], stdio)

    def _argv(self, root: Path, log: Path | None = None) -> list[str]:
        # The log is where a failure is told in words; systemd's cgroup driver would not know our own groups.
        return [self.path, "--root", str(root), "--log", f"{log or root}.log", "--log-format", "json"] + (
            ["--cgroup-manager", "cgroupfs"] if self.name == "crun" else []
        )


class _LogLine(msgspec.Struct):
    msg: str = ""
    level: str = ""


def logged_failure(root: Path, program: str) -> ContainerError | None:
    """Return the last error in the runtime's log `root`.log, with Docker's exit code for not running `program`."""
    try:
        lines = Path(f"{root}.log").read_bytes()[-65536:].splitlines()
    except FileNotFoundError:
        return None
    message = ""
    for raw in lines:
        with suppress(msgspec.DecodeError):
            line = msgspec.json.decode(raw, type=_LogLine)
            message = line.msg if line.level in ("error", "fatal") else message
    if not message:
        return None
    problem = ContainerError(f"cannot run {program}: {message}")
    problem.exit_code = exit_code_of(message)
    return problem


def exit_code_of(message: str) -> int:
    """Return 127 when the runtime says the program is missing, 126 when it cannot be executed, else 125."""
    text = message.lower()
    at = max(text.find("exec: "), text.find("executable"))
    if at < 0:
        return 125
    if "not found" in text[at:] or "no such file" in text[at:]:
        return 127
    return 126 if any(word in text[at:] for word in ("permi", "is a directory", "format error")) else 125


def find_runtime(home: Home) -> Runc:
    """Return the runtime to use: MLBOX_RUNTIME, else the first of runc and crun that works on this host.

    Raises ContainerError saying what was tried and why not.
    """
    if chosen := os.environ.get("MLBOX_RUNTIME"):
        return _probed(chosen, home)
    reasons = []
    for name in ("runc", "crun"):
        try:
            return _probed(name, home)
        except ContainerError as problem:
            reasons.append(problem.message)
    raise ContainerError("no OCI runtime works here: " + "; ".join(reasons), hint=_HINT)


def refusal(name: str, unified_controllers: str | None) -> str:
    """Return why runtime `name` cannot work on a host whose hybrid cgroup2 mount has these controllers; '' if it can.

    None: the host is not hybrid. crun stops on any controller there; runc ignores them.
    """
    if name == "crun" and unified_controllers and unified_controllers.strip():
        return "crun refuses hosts with cgroup v1 and v2 mixed ('hybrid')"
    return ""


def _probed(name: str, home: Home) -> Runc:
    path = find_program(name)
    if path is None:
        raise ContainerError(f"{name} is not installed", hint=_HINT)
    kind = "crun" if "crun" in Path(path).name else "runc"
    if reason := refusal(kind, _hybrid_controllers() if kind == "crun" else None):
        raise ContainerError(reason, hint=_HINT)
    stat = os.stat(path)  # noqa: PTH116
    key = f"{path} {stat.st_mtime_ns} {stat.st_size}"
    cache = home.root / "runtime.json"
    if _read_or_empty(cache) != canonical_json({"works": key}):
        _check_version(path)
        home.root.mkdir(parents=True, exist_ok=True)
        cache.write_bytes(canonical_json({"works": key}))
    return Runc(path, kind)


def _check_version(path: str) -> None:
    from mlbox import process

    try:
        process.run([path, "--version"], timeout=20)
    except (ProcessError, OSError) as problem:
        raise ContainerError(f"{path} does not run: {str(problem).strip()}", hint=_HINT) from problem


def _hybrid_controllers() -> str | None:
    mounted = cgroup.hierarchies()
    if cgroup.is_unified(mounted):
        return None
    unified = [one for one in mounted if one.version == 2]
    return Path(unified[0].path, "cgroup.controllers").read_text() if unified else None


def _read_or_empty(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _spawn(argv: list[str], stdio: Sequence[int], lock: int | None = None) -> int:
    """Start `argv` with these three standard files (none: all /dev/null), and of ours nothing else open but `lock`."""
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]]
    if stdio:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
    else:
        actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    if lock is not None:
        actions.append((os.POSIX_SPAWN_DUP2, lock, 3))
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        return os.posix_spawn(argv[0], argv, env, file_actions=actions, setsigdef=_DEFAULT_SIGNALS)
    except OSError as problem:
        raise ContainerError(f"cannot start {argv[0]}: {problem.strerror}", hint=_HINT) from problem
