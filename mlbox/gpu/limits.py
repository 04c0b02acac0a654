"""What each user of a host may have of its GPUs: /etc/mlbox/gpus.toml, which its administrator writes."""

from pathlib import Path
from typing import Any

import msgspec

from mlbox.codec import load_toml
from mlbox.errors import ContainerError, MlboxError
from mlbox.units import duration, parse_duration

SYSTEM = Path("/etc/mlbox/gpus.toml")
_SUPERUSER = "root"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one user may have."""

    gpus: int | None = None
    """At once, in all containers together; None is any number."""
    time: float | None = None
    """Seconds that a container with GPUs may run, None without an end."""
    share: bool = True
    """Whether --gpu-share may be said."""
    priority: int = 0
    """One stands in the queue as if it had come ten minutes earlier."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    gpus: int | msgspec.UnsetType = msgspec.UNSET
    time: str | msgspec.UnsetType = msgspec.UNSET
    share: bool | msgspec.UnsetType = msgspec.UNSET
    priority: int | msgspec.UnsetType = msgspec.UNSET


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    default: _Section = _Section()
    users: dict[str, _Section] = {}


def limits_of(user: str, path: Path = SYSTEM) -> Limits:
    """Return what `user` may have: [default], with what [users.NAME] says instead; without a file, all.

    [default] is not for root, who could change it. Raises MlboxError naming the file and the key that is wrong.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Limits()
    except OSError as problem:
        raise MlboxError(f"{path} cannot be read: {problem.strerror}") from problem
    table = _parsed(data, path)
    own = table.users.get(user, _Section())
    base = {} if user == _SUPERUSER else _values(table.default)
    return Limits(**(base | _values(own)))


def check(limits: Limits, user: str, *, count: int, seconds: float | None, share: bool) -> None:
    """Raise ContainerError when `user` may not have `count` GPUs in this way, however long the wait."""
    if limits.gpus is not None and count > limits.gpus:
        raise ContainerError(f"{user} may have {limits.gpus} GPUs at once, not {count}", hint=_HINT)
    if share and not limits.share:
        raise ContainerError(f"{user} may not share GPUs", hint=f"leave --gpu-share out; {_HINT}")
    if limits.time is not None and (seconds is None or seconds > limits.time):
        longest = duration(limits.time)
        raise ContainerError(f"{user} may have GPUs for {longest} at most", hint=f"--for {longest}; {_HINT}")


_HINT = f"{SYSTEM} says so"


def _parsed(data: bytes, path: Path) -> _File:
    document = load_toml(data, what=str(path))
    try:
        found = msgspec.convert(document, _File)
    except msgspec.ValidationError as problem:
        text = str(problem).replace(" - at `$.", ", at `").replace("`$`", "the top")
        raise MlboxError(
            f"{path}: {text}", hint="[default] and [users.NAME] have gpus, time, share, priority"
        ) from None
    for where, section in {"default": found.default, **{f"users.{n}": one for n, one in found.users.items()}}.items():
        _check_values(section, f"{path}: {where}")
    return found


def _check_values(section: _Section, where: str) -> None:
    values: dict[str, Any] = msgspec.structs.asdict(section)
    if values["gpus"] is not msgspec.UNSET and not 0 <= values["gpus"] <= 10_000:
        raise MlboxError(f"{where}.gpus: not a number of GPUs: {values['gpus']}")
    if values["priority"] is not msgspec.UNSET and not -100 <= values["priority"] <= 100:
        raise MlboxError(f"{where}.priority: not between -100 and 100: {values['priority']}")
    if values["time"] is not msgspec.UNSET:
        try:
            parse_duration(values["time"])
        except MlboxError as problem:
            raise MlboxError(f"{where}.time: {problem.message}", hint=problem.hint) from None


def _values(section: _Section) -> dict[str, Any]:
    found = {name: value for name, value in msgspec.structs.asdict(section).items() if value is not msgspec.UNSET}
    return found | ({"time": parse_duration(found["time"])} if "time" in found else {})
