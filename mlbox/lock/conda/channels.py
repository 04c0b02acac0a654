"""Where channels are: what the project names, then the user's conda configuration."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlbox.errors import FetchError, LockError, ProjectError
from mlbox.http import redact
from mlbox.lock.conda.model import channel_name
from mlbox.lock.model import CondaPackage
from mlbox.paths import Home
from mlbox.project.yaml import Node, parse_yaml

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_SCHEMES = ("https", "http", "file")
_HINT = "set channel_alias in ~/.condarc or MLBOX_CONDA_CHANNEL_ALIAS, or name the channel by its address"


class Channels:
    """Knows the addresses of channels by name. Everything is read when it is first needed; safe to use from threads."""

    def __init__(
        self,
        named: Sequence[str] = (),
        *,
        home: Home | None = None,
        environ: Mapping[str, str] = os.environ,
        learn: Callable[[str], None] | None = None,
    ) -> None:
        """`named` are the project's channels; `home` remembers where files were; `learn` is told of passwords."""
        self._named = named
        self._home = home
        self._environ = environ
        self._learn = learn

    def addresses(self, name: str) -> tuple[str, ...]:
        """Return the addresses of the channel that a project calls `name`; LockError when nothing says where it is."""
        if "://" in name:
            return (self._address(name),)
        if name == "defaults":
            return tuple(self._one(one) for one in self._default_channels())
        several = self._config.get("custom_multichannels", {})
        if isinstance(several, dict) and isinstance(several.get(name), list):
            return tuple(self._one(str(one)) for one in several[name])
        return (self._one(name),)

    def urls(self, package: CondaPackage) -> Iterator[str]:
        """Yield where the package's file may be, the likeliest first; FetchError when nothing says."""
        hint = self._home.metadata / "urls" / package.sha256 if self._home else None
        hinted = hint.read_text() if hint and hint.is_file() else ""
        places = list(dict.fromkeys(self._places(package.channel)))
        if not (hinted or places):
            raise FetchError(f"{package.filename}: nothing says where channel {package.channel!r} is", hint=_HINT)
        below = [f"{place}/{package.subdir}/{package.filename}" for place in places]
        # A configured address may have the password or token that a remembered one has not.
        yield from dict.fromkeys([*below, *([hinted] if hinted else [])])

    def _places(self, channel: str) -> tuple[str, ...]:
        """Return the addresses of a channel of that name: those that are written out, else what its name means."""
        configured = self._config.get("channels", [])
        named = [str(one) for one in (*self._named, *(configured if isinstance(configured, list) else ()))]
        if found := [one for one in named if "://" in one and channel_name(one) == channel]:
            return tuple(map(self._address, found))
        try:
            known = (*self.addresses(channel), *(self.addresses("defaults") if "/" in channel else ()))
        except LockError:
            return ()
        return tuple(one for one in known if channel_name(one) == channel)

    def _one(self, name: str) -> str:
        if "://" in name:
            return self._address(name)
        custom = self._config.get("custom_channels", {})
        base = custom.get(name) if isinstance(custom, dict) else None
        return self._address(f"{(str(base) if base else self._alias).rstrip('/')}/{name}")

    @cached_property
    def _alias(self) -> str:
        for name in ("MLBOX_CONDA_CHANNEL_ALIAS", "CONDA_CHANNEL_ALIAS"):
            if value := self._environ.get(name, "").strip():
                return value
        alias = str(self._config.get("channel_alias", "")) or _condas_own("DEFAULT_CHANNEL_ALIAS")
        if not isinstance(alias, str) or not alias:
            raise LockError("nothing says where conda's channels are", hint=_HINT)
        return alias

    def _default_channels(self) -> list[str]:
        found = self._config.get("default_channels") or _condas_own("DEFAULT_CHANNELS")
        if not isinstance(found, list | tuple):
            raise LockError(
                "nothing says what the channel 'defaults' is", hint="set default_channels in ~/.condarc, or name others"
            )
        return [str(one) for one in found]

    def _address(self, text: str) -> str:
        text = _VARIABLE.sub(lambda found: self._environ.get(found[1] or found[2], found[0]), text).rstrip("/")
        if urlsplit(text).scheme not in _SCHEMES:
            raise LockError(f"{redact(text)[:200]!r} is no address of a channel", hint="write https://HOST/PATH")
        if self._learn:
            self._learn(text)
        return text

    @cached_property
    def _config(self) -> dict[str, Any]:
        """What the files say; of two the one that conda asks last wins."""
        found: dict[str, Any] = {}
        for path in self._files():
            try:
                data = path.read_bytes()
            except OSError:
                continue
            try:
                content = _plain(parse_yaml(data))
            except ProjectError as problem:
                raise LockError(f"{path} {problem.message}", hint=problem.hint) from problem
            found |= content if isinstance(content, dict) else {}
        return found

    def _files(self) -> Iterator[Path]:
        """Yield conda's configuration files, the weakest first."""
        home = Path(self._environ.get("HOME") or "/root")
        config = Path(self._environ.get("XDG_CONFIG_HOME") or home / ".config")
        folders = [Path("/etc/conda"), Path("/var/lib/conda"), config / "conda", home / ".conda", home]
        if prefix := self._environ.get("CONDA_PREFIX"):
            folders.append(Path(prefix))
        for folder in folders:
            yield from (folder / "condarc", folder / ".condarc") if folder != home else (folder / ".condarc",)
        if named := self._environ.get("CONDARC"):
            yield Path(named)


def _plain(node: Node) -> object:
    value = node.value
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _condas_own(name: str) -> object:
    """Return what conda itself has where nobody says otherwise, from the conda that conda-lock brings."""
    try:
        from conda_lock._vendor.conda.base import constants
    except ImportError:
        return ""
    return getattr(constants, name, "")
