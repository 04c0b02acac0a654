"""The programs that keep logins (docker-credential-NAME): secrets go through their stdin and stdout only."""

import os
import re

import msgspec

from mlbox import process
from mlbox.errors import ProcessError, RegistryError
from mlbox.registry.credentials import Credentials
from mlbox.registry.problem import clean

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN_USER = "<token>"  # noqa: S105 - what Docker writes in place of a user's name
_PATIENCE = 120.0  # it may ask for a passphrase
_MISSING, _LATE, _NO_PROGRAM = 127, 124, 126  # as mlbox.process has them
_NOT_FOUND = b"credentials not found"


class _Kept(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    server_url: str = msgspec.field(name="ServerURL", default="")
    username: str = ""
    secret: str = ""


def get(helper: str, key: str, *, needed: bool = True) -> Credentials | None:
    """Return the login that the program keeps for `key`; a missing program is an error when it is `needed`."""
    try:
        done = _run(helper, "get", key.encode())
    except ProcessError as problem:
        if problem.returncode == _MISSING and not needed:
            return None
        raise _failed(helper, "get", problem) from None
    if done.returncode != 0:
        if _NOT_FOUND in done.stdout or not done.stdout.strip():
            return None
        raise RegistryError(f"{_program(helper)} get: {_words(done)}", hint=_broken(helper))
    try:
        kept = msgspec.json.decode(done.stdout, type=_Kept)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RegistryError(f"{_program(helper)}: its answer is not understood", hint=_broken(helper)) from None
    if kept.username == _TOKEN_USER:
        return Credentials(identity_token=kept.secret)
    return Credentials(username=kept.username, password=kept.secret) if kept.secret else None


def store(helper: str, key: str, credentials: Credentials) -> None:
    """Let the program keep a login."""
    kept = _Kept(server_url=key, username=credentials.username, secret=credentials.password)
    _do(helper, "store", msgspec.json.encode(kept))


def erase(helper: str, key: str) -> None:
    """Let the program forget the login for `key`."""
    _do(helper, "erase", key.encode())


def _do(helper: str, action: str, stdin: bytes) -> None:
    try:
        done = _run(helper, action, stdin)
    except ProcessError as problem:
        raise _failed(helper, action, problem) from None
    if done.returncode != 0:
        raise RegistryError(f"{_program(helper)} {action}: {_words(done)}", hint=_broken(helper))


def _words(done: process.Result) -> str:
    """Return why it failed: these programs say it on stdout."""
    return clean(done.stdout.decode(errors="replace")) or f"status {done.returncode}"


def _run(helper: str, action: str, stdin: bytes) -> process.Result:
    # The user's environment, for helpers find agents, keyrings and cloud accounts there; but not what is mlbox's alone,
    # such as the password of a key.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLBOX_")}
    return process.run([_program(helper), action], env=env, stdin=stdin, ok=range(256), timeout=_PATIENCE)


def _program(helper: str) -> str:
    if not _NAME.fullmatch(helper):
        raise RegistryError(
            f"not the name of a credential helper: {clean(helper)[:80]!r}",
            hint="credsStore and credHelpers say NAME for a program docker-credential-NAME",
        )
    return f"docker-credential-{helper}"


def _failed(helper: str, action: str, problem: ProcessError) -> RegistryError:
    if problem.returncode == _MISSING:
        hint = "the file of logins names it in credsStore or credHelpers: install it, or take it out of there"
        return RegistryError(f"{_program(helper)} is not installed", hint=hint)
    reasons = {_LATE: f"gave no answer in {_PATIENCE:g} s", _NO_PROGRAM: f"did not run: {problem.message}"}
    reason = reasons.get(problem.returncode, f"failed with status {problem.returncode}")
    return RegistryError(f"{_program(helper)} {action} {reason}", hint=_broken(helper))


def _broken(helper: str) -> str:
    program = _program(helper)
    return f"'echo HOST | {program} get' shows what is wrong with it; repair it, or take it out of the file of logins"
