"""Locking a conda environment with conda-lock, whose conda is a stand-in on rattler's solver."""

import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlbox import process
from mlbox.errors import LockError, ProcessError, ResolveError
from mlbox.http import ca_bundle, is_offline, redact_text
from mlbox.lock.conda import stand_in
from mlbox.lock.conda.channels import Channels
from mlbox.lock.conda.model import PinnedConda
from mlbox.lock.foreign.conda_lock import read_conda_lock
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.model import SUBDIRS, CondaPackage, Package, Target
from mlbox.lock.python.model import Indexes, Value
from mlbox.project.model import CondaSpec

_CRASHED = "died with <Signals."
_TIMEOUT = 1800.0
_LINUX = "5.10"
"""The kernel that packages may count on: Debian's oldest release that mlbox knows has it."""
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_CUDA = re.compile(r"cu(\d+)(\d)")
_NAMES_PIP = re.compile(r"(?:\S+::)?pip(?![\w.-])")
# What conda-forge calls otherwise than the index does, of what ML environments have: a wheel that asks for one of these
# is content with the conda package. A table, because nothing better is at hand: records of channels name no package of
# the index (package URLs in pixi.lock are looked up by pixi), and conda-lock's own mapping is a page of conda-forge's
# build farm, fetched while locking and another one every day: a lock would depend on it, and need one host more.
_OTHERWISE = {
    "blosc": "python-blosc",
    "build": "python-build",
    "duckdb": "python-duckdb",
    "fastjsonschema": "python-fastjsonschema",
    "flatbuffers": "python-flatbuffers",
    "graphviz": "python-graphviz",
    "kubernetes": "python-kubernetes",
    "lmdb": "python-lmdb",
    "matplotlib": "matplotlib-base",
    "msgpack": "msgpack-python",
    "opencv-python": "py-opencv",
    "tables": "pytables",
    "torch": "pytorch",
    "tzdata": "python-tzdata",
    "xgboost": "py-xgboost",
    "xxhash": "python-xxhash",
}


class CondaQuestion(Value, frozen=True, kw_only=True):
    """Everything that decides a conda lock."""

    spec: CondaSpec
    requirements: tuple[str, ...] = ()
    """Of its pip section."""
    target: Target
    indexes: Indexes
    keep: tuple[CondaPackage, ...] = ()
    """Packages that stay where the spec allows it."""
    keep_wheels: tuple[Package, ...] = ()
    upgrade: tuple[str, ...] = ()
    """Names of what is to move."""


def lock_with_conda_lock(question: CondaQuestion, channels: Channels, cache: Path) -> Imported:
    """Answer `question`; downloaded indexes of channels stay in `cache`. ResolveError has the solver's explanation."""
    _need_extra()
    # rattler notes beside each index where it is from, passwords included.
    cache.mkdir(parents=True, exist_ok=True)
    cache.chmod(0o700)
    with tempfile.TemporaryDirectory(prefix="mlbox-conda-") as name:
        folder = Path(name)
        addresses = _addresses(question.spec, channels)
        flat = tuple(dict.fromkeys(one for found in addresses.values() for one in found))
        _write(folder / "environment.yml", _environment(question, flat))
        _write(folder / "virtual.yml", _virtual_packages(question.target))
        _write(folder / "mapping.json", _mapping())
        _write(folder / "question.json", _question(question, addresses, cache))
        _write_previous(folder / "conda-lock.yml", question, flat)
        _run(folder, question)
        answer = json.loads((folder / "answer.json").read_text())
        selection = Selection(target=question.target)
        imported = read_conda_lock((folder / "conda-lock.yml").read_bytes(), selection, local=True)
    sizes = answer.get("sizes", {})
    return Imported(conda=tuple(_sized(one, sizes) for one in imported.conda), pins=imported.pins)


def _need_extra() -> None:
    if not (find_spec("conda_lock") and find_spec("rattler")):
        raise LockError(
            "locking a conda environment needs conda-lock and py-rattler, which are not installed",
            hint="install mlbox[conda]; a conda-lock.yml or pixi.lock is read without them",
        )


def _write(path: Path, document: object) -> None:
    """Write `document` as JSON, which is YAML too; the folder around it is this user's alone."""
    path.write_text(json.dumps(document, indent=1))


def _addresses(spec: CondaSpec, channels: Channels) -> dict[str, tuple[str, ...]]:
    named = [one for one in spec.channels if one != "nodefaults"] or ["defaults"]
    named += [one.text.partition("::")[0] for one in spec.dependencies if "::" in one.text]
    return {name: channels.addresses(name) for name in dict.fromkeys(named)}


def _environment(question: CondaQuestion, channels: Sequence[str]) -> dict[str, Any]:
    dependencies: list[Any] = [one.text for one in question.spec.dependencies]
    if question.requirements:
        dependencies.append({"pip": list(question.requirements)})
    return {
        "channels": list(channels),
        "dependencies": dependencies,
        "platforms": [SUBDIRS[question.target.arch]],
        "pip-repositories": [index.url for index in question.indexes.all],
        "allow-pypi-requests": False,
    }


def _virtual_packages(target: Target) -> dict[str, Any]:
    """Return what the target's system has, in conda's words; none of it is this machine's."""
    found = {
        "__unix": "0",
        "__linux": _LINUX,
        "__glibc": target.glibc,
        "__archspec": f"1 {_MACHINES[target.arch]}",
    }
    if cuda := _CUDA.fullmatch(target.accelerator):
        found["__cuda"] = f"{cuda[1]}.{cuda[2]}"
    return {"subdirs": {SUBDIRS[target.arch]: {"packages": found}}}


def _mapping() -> dict[str, Any]:
    """Return which conda package stands for which of the index, as conda-lock's --pypi_to_conda_lookup_file has it."""
    names = _OTHERWISE.items()
    return {name: {"pypi_name": name, "conda_name": conda, "conda_forge": conda} for name, conda in names}


def _question(question: CondaQuestion, addresses: dict[str, tuple[str, ...]], cache: Path) -> dict[str, Any]:
    moving = set(question.upgrade)
    return {
        "cache": str(cache),
        "channels": {name: found[0] for name, found in addresses.items()},
        "locked": {one.sha256: one.name for one in question.keep if one.name not in moving},
        "pip": next((one.text for one in question.spec.dependencies if _NAMES_PIP.match(one.text)), ""),
    }


def _write_previous(path: Path, question: CondaQuestion, channels: Sequence[str]) -> None:
    """Write the lock that conda-lock starts from: wheels alone, since the stand-in keeps the conda packages.

    (conda-lock's own way of keeping those ignores what the spec asks for since.)
    """
    if not question.keep_wheels or any("@" in one or "/t/" in one or "$" in one for one in channels):
        return  # an address with a password is written otherwise there
    platform = SUBDIRS[question.target.arch]
    packages = [
        {
            "name": one.name,
            "version": one.version,
            "manager": "pip",
            "platform": platform,
            "dependencies": {},
            "url": f"https://index.invalid/{one.filename}",
            "hash": {"sha256": one.sha256},
            "category": "main",
            "optional": False,
        }
        for one in question.keep_wheels
    ]
    metadata = {
        "content_hash": {platform: ""},
        "channels": [{"url": one, "used_env_vars": []} for one in channels],
        "platforms": [platform],
        "sources": ["environment.yml"],
    }
    _write(path, {"version": 1, "metadata": metadata, "package": packages})


def _run(folder: Path, question: CondaQuestion) -> None:
    conda = folder / "conda"
    conda.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I {shlex.quote(stand_in.__file__)} "$@"\n')
    conda.chmod(0o700)
    argv = [
        *(sys.executable, "-I", "-m", "conda_lock", "lock", "--log-level", "ERROR", "--no-mamba", "--no-micromamba"),
        *("--conda", str(conda), "--file", "environment.yml", "--lockfile", "conda-lock.yml"),
        *("--virtual-package-spec", "virtual.yml", "--pypi_to_conda_lookup_file", f"file://{folder}/mapping.json"),
        *(word for name in question.upgrade for word in ("--update", name)),
    ]
    env = {
        "MLBOX_CONDA_QUESTION": str(folder / "question.json"),
        "MLBOX_CONDA_ANSWER": str(folder / "answer.json"),
        "TMPDIR": str(folder),
        "NO_COLOR": "1",
    }
    env |= {name: os.environ[name] for name in ("XDG_CACHE_HOME", "NETRC", "RATTLER_AUTH_FILE") if name in os.environ}
    if bundle := ca_bundle():
        env |= {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle}
    if is_offline():
        raise ResolveError("a conda environment cannot be locked offline", hint="unset MLBOX_OFFLINE, or keep the lock")
    try:
        _persist(argv, env, folder)
    except ProcessError as problem:
        raise _explain(problem, folder) from problem


def _persist(argv: list[str], env: dict[str, str], folder: Path) -> None:
    """Run conda-lock, and once more when the solver below it crashed: rattler has been seen to, once in hundreds."""
    try:
        process.run(argv, env=env, cwd=folder, timeout=_TIMEOUT)
    except ProcessError as problem:
        if _CRASHED not in problem.stderr:
            raise
        process.run(argv, env=env, cwd=folder, timeout=_TIMEOUT)


def _explain(problem: ProcessError, folder: Path) -> ResolveError:
    """Return what the solver said, else the end of what conda-lock said; no temporary paths, no passwords."""
    answer = folder / "answer.json"
    said = json.loads(answer.read_text()).get("error", "") if answer.is_file() else ""
    if not said:
        lines = [line for line in (problem.stderr or problem.message).splitlines() if line.strip()]
        said = "\n".join(lines[-12:])
    text = redact_text(re.sub(r"/t/[^/\s]+(?=/)", "/t/…", str(said))).replace(f"{folder}/", "")
    return ResolveError(f"conda-lock found no set of packages\n{text}", hint=_hint(text))


def _hint(text: str) -> str:
    if "__cuda" in text:
        return (
            "accelerator says whether CUDA is there: set accelerator = 'cu126' in [tool.mlbox], or ask for a cpu build"
        )
    if re.search(r"\b40[13] (?:Unauthorized|Forbidden)", text):
        return "the channel wants a password or token: https://${USER}:${TOKEN}@HOST/PATH takes it from variables"
    if re.search(r"error sending request|repodata|dns error|status code|Connection|Max retries", text):
        return "is this machine online, and are the channels right? channel_alias in ~/.condarc says where they are"
    return "loosen one of the requirements named above, or add the channel that has the package"


def _sized(one: PinnedConda, sizes: dict[str, int]) -> PinnedConda:
    from msgspec.structs import replace

    return replace(one, package=replace(one.package, size=sizes.get(one.package.sha256, one.package.size)))
