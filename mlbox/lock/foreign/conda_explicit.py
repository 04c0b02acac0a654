"""Explicit lists of conda packages, as `conda list --explicit` and `conda-lock -k explicit` write them."""

import re

from mlbox.errors import LockError
from mlbox.http import redact
from mlbox.lock.conda.model import PinnedConda, pinned
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.foreign.pip import pinned_from_url
from mlbox.lock.model import SUBDIRS
from mlbox.lock.python.model import Pinned

MARK = "@EXPLICIT"
_MOST = 4 << 20
_HASH = re.compile(r"(?:(sha256|md5):)?([0-9a-fA-F]{32}(?:[0-9a-fA-F]{32})?)")
_PIP = re.compile(
    r"#\s*pip\s+(\S+)\s+@\s+(\S+?)(?:\s+--hash=sha256:([0-9a-fA-F]{64}))?(?:#sha256=([0-9a-fA-F]{64}))?\s*"
)


def read_conda_explicit(data: bytes, selection: Selection) -> Imported:
    """Return the packages that the list names; every one needs a hash, and all must be for the target's machine."""
    if len(data) > _MOST:
        raise LockError(f"an explicit list of more than {_MOST >> 20} MiB")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise LockError("an explicit list that is not UTF-8") from problem
    if MARK not in (line.strip() for line in lines):
        raise LockError(f"an explicit list has a line {MARK}", hint="'conda list --explicit --md5' writes one")
    conda: dict[str, PinnedConda] = {}
    pins: dict[str, Pinned] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        try:
            if found := _PIP.fullmatch(line):
                pip = _pip(found)
                if pins.setdefault(pip.name, pip) is not pip:
                    raise LockError(f"{pip.name} stands there twice")
            elif line and not line.startswith(("#", "@")):
                one = _package(line, SUBDIRS[selection.target.arch])
                if conda.setdefault(one.package.name, one) is not one:
                    raise LockError(f"{one.package.name} stands there twice")
        except LockError as problem:
            raise LockError(f"line {number}: {problem.message}", hint=problem.hint) from problem
    return Imported(
        conda=tuple(one for _, one in sorted(conda.items())), pins=tuple(one for _, one in sorted(pins.items()))
    )


def _package(line: str, platform: str) -> PinnedConda:
    url, _, fragment = line.partition("#")
    found = _HASH.fullmatch(fragment)
    if found is None or (found[1] and (found[1] == "sha256") != (len(found[2]) == 64)):
        raise LockError(
            f"{redact(url)[:200]!r} has no hash behind '#'", hint="'conda list --explicit --sha256' writes them"
        )
    one = pinned(url, sha256=found[2]) if len(found[2]) == 64 else pinned(url, md5=found[2])
    if one.package.subdir not in (platform, "noarch"):
        raise LockError(f"{one.package.filename} is for {one.package.subdir}, not for {platform}")
    return one


def _pip(found: re.Match[str]) -> Pinned:
    name, url = found[1].partition("[")[0], found[2]
    # What has no path ends with its host, and who may ask there.
    filename = url.partition("#")[0].partition("://")[2].partition("/")[2].rpartition("/")[2]
    stem = filename.removesuffix(".tar.gz").removesuffix(".zip")
    version = filename.split("-")[1] if filename.endswith(".whl") and "-" in filename else stem.rpartition("-")[2]
    return pinned_from_url(name, version, url, sha256=found[3] or found[4] or "")
