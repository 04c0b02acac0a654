"""The one door through which mlbox starts other programs."""

import os
import shlex
import subprocess  # noqa: TID251 - this module is the door
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlbox.errors import ProcessError

# What a child needs to find programs, certificates, proxies and the user's own configuration; nothing else leaks in.
_PASSED = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "USER", "XDG_RUNTIME_DIR")
_PASSED_PREFIXES = (
    "SSL_CERT_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


class Result(NamedTuple):
    """How a program ended, with everything it printed."""

    returncode: int
    stdout: bytes
    stderr: bytes


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment children get: an allow-list of ours, then `extra`."""
    env = {k: v for k, v in os.environ.items() if k in _PASSED or k.startswith(_PASSED_PREFIXES)}
    env.update(extra or {})
    return env


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes = b"",
    ok: Sequence[int] = (0,),
    timeout: float | None = None,
    hint: str | None = None,
) -> Result:
    """Run `argv` to its end and return what it printed.

    Raises ProcessError with a copy-pasteable command and the end of its stderr when the exit
    status is not in `ok`, when the program is missing, or after `timeout` seconds.
    """
    try:
        done = subprocess.run(
            argv,
            env=environment(env),
            cwd=cwd,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=timeout,
        )
    except FileNotFoundError as problem:
        raise ProcessError(f"program not found: {argv[0]}", returncode=127, hint=hint) from problem
    except OSError as problem:
        raise ProcessError(f"cannot start {argv[0]}: {problem.strerror}", returncode=126, hint=hint) from problem
    except subprocess.TimeoutExpired as problem:
        raise ProcessError(f"gave up after {timeout:g} s: {shlex.join(argv)}", returncode=124, hint=hint) from problem
    if done.returncode not in ok:
        stderr = done.stderr.decode(errors="replace")
        tail = "\n".join(stderr.strip().splitlines()[-20:])
        raise ProcessError(
            f"failed with status {done.returncode}: {shlex.join(argv)}\n{tail}",
            returncode=done.returncode,
            stderr=stderr,
            hint=hint,
        )
    return Result(done.returncode, done.stdout, done.stderr)
