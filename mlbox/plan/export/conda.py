"""A lock as conda's environment.yml, and as conda-lock's conda-lock.yml."""

import re
from collections.abc import Iterator

from mlbox.codec import key_of, quoted
from mlbox.errors import LockError
from mlbox.lock.model import SUBDIRS, CondaPackage, Lock
from mlbox.plan.export.requirements import hashed
from mlbox.plan.export.words import Address, header, not_everywhere, version, without_folders

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.=-]*")
_ANY = '""'
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def environment_yml(lock: Lock, name: str) -> str:
    """Return environment.yml: conda packages by version and build, and those that conda's pip installs by hash.

    Without conda packages it asks for the lock's Python, of the channels that conda is configured with.
    """
    return "\n".join([*_environment(lock, name), ""])


def conda_lock(lock: Lock, address: Address) -> str:
    """Return conda-lock.yml (version 1). It wants the address of every file, which a lock does not have."""
    return "\n".join([*_conda_lock(lock, address), ""])


def _environment(lock: Lock, name: str) -> Iterator[str]:
    said = (*header(lock), *without_folders(lock), *not_everywhere(lock))
    yield from (f"# {line}" for line in said)
    yield f"name: {_scalar(name)}"
    if lock.conda:
        yield "channels:"
        yield from (f"  - {_scalar(channel)}" for channel in (*_channels(lock), "nodefaults"))
    yield "dependencies:"
    if lock.conda:
        yield from (f"  - {quoted(f'{one.channel}::{one.name}={one.version}={one.build}')}" for one in lock.conda)
    else:
        yield f"  - python={lock.target.python_full}"
    if lock.packages:
        if not any(one.name == "pip" for one in lock.conda):
            yield "  - pip"
        yield "  - pip:"
        yield from (f"      - {_scalar(hashed(package))}" for package in lock.packages)


def _conda_lock(lock: Lock, address: Address) -> Iterator[str]:
    platform = SUBDIRS[lock.target.arch]
    yield from (f"# {line}" for line in (*header(lock), *without_folders(lock)))
    yield "version: 1"
    yield "metadata:"
    yield "  content_hash:"
    yield f"    {platform}: {key_of(lock)}"
    yield "  channels:"
    for channel in _channels(lock):
        yield f"    - url: {_scalar(channel)}"
        yield "      used_env_vars: []"
    yield f"  platforms: [{platform}]"
    yield "  sources: [mlbox.lock]"
    yield "package:"
    for conda in lock.conda:
        hashes = {"md5": _md5(conda), "sha256": conda.sha256}
        yield from _locked(conda.name, conda.version, "conda", platform, conda.requires, address(conda), hashes)
    for package in lock.packages:
        hashes = {"sha256": package.sha256} if package.sha256 else {}
        where = address(package)
        yield from _locked(package.name, version(package), "pip", platform, package.requires, where, hashes)


def _md5(package: CondaPackage) -> str:
    """Return what conda-lock reads no conda package without."""
    if not package.md5:
        raise LockError(
            f"{package.filename} is locked without its md5, which conda-lock wants",
            hint="lock from environment.yml, conda-lock.yml or pixi.lock, or export environment.yml",
        )
    return package.md5


def _locked(
    name: str, version: str, manager: str, platform: str, requires: tuple[str, ...], url: str, hashes: dict[str, str]
) -> Iterator[str]:
    yield f"  - name: {_scalar(name)}"
    yield f"    version: {quoted(version)}"
    yield f"    manager: {manager}"
    yield f"    platform: {platform}"
    yield f"    dependencies: {{{', '.join(f'{quoted(one)}: {_ANY}' for one in requires)}}}"
    yield f"    url: {quoted(url)}"
    yield f"    hash: {{{', '.join(f'{kind}: {quoted(value)}' for kind, value in hashes.items())}}}"
    yield "    category: main"
    yield "    optional: false"


def _channels(lock: Lock) -> list[str]:
    return list(dict.fromkeys(one.channel for one in lock.conda))


def _scalar(text: str) -> str:
    # JSON's strings are YAML's; what YAML would take for a number, a date or null is quoted with the rest.
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else quoted(text)
