"""The part of conda's command line that conda-lock uses, answered by rattler's solver.

A program: conda-lock starts it as its conda. What conda would have asked of its configuration stands in the file
that MLBOX_CONDA_QUESTION names; what conda-lock does not hand on is written to the one that MLBOX_CONDA_ANSWER names.
Nothing of mlbox is imported, so that it starts quickly.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

VERSION = "conda 24.11.0"
"""What conda-lock takes it for."""


def main(argv: list[str]) -> int:
    """Answer one command as conda would; return its exit status."""
    if argv == ["--version"]:
        return _say(VERSION)
    options, specs = _parser().parse_known_args(argv)
    if options.command in ("info", "config"):
        return _say(json.dumps({"pkgs_dirs": [os.environ.get("CONDA_PKGS_DIRS", "")]}))
    if options.command != "create":
        return _fail(f"conda-lock asked for 'conda {options.command}', which is not known here")
    question = json.loads(Path(os.environ["MLBOX_CONDA_QUESTION"]).read_text())
    specs = [_whole(spec, question) for spec in specs if not spec.startswith("-")]
    platforms = [os.environ.get("CONDA_SUBDIR", "linux-64"), "noarch"]
    try:
        records = asyncio.run(_solve(options.channel, specs, platforms, question))
    except Exception as problem:  # noqa: BLE001 - whatever it was, conda-lock shows it
        return _fail(str(problem))
    _answer({"sizes": {record.sha256.hex(): record.size or 0 for record in records if record.sha256}})
    actions = {"FETCH": [_fetch(record) for record in records], "LINK": [_link(record) for record in records]}
    return _say(json.dumps({"success": True, "dry_run": True, "actions": actions}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command")
    parser.add_argument("-p", "--prefix")
    parser.add_argument("-c", "--channel", action="append", default=[])
    for flag in ("--dry-run", "--json", "--override-channels", "--yes", "--no-pip"):
        parser.add_argument(flag, action="store_true")
    return parser


def _whole(spec: str, question: dict[str, Any]) -> str:
    """Return a spec with what conda-lock loses: the version of pip, and where the channel that it names is."""
    if spec.split()[0] == "pip":  # which conda-lock adds beside a pip section, and takes for the last word
        spec = question["pip"] or spec
    channel, colons, rest = spec.partition("::")
    return f"{question['channels'].get(channel, channel)}::{rest}" if colons else spec


async def _solve(channels: list[str], specs: list[str], platforms: Any, question: dict[str, Any]) -> list[Any]:  # noqa: ANN401
    from rattler import Gateway, MatchSpec, solve

    gateway = Gateway(cache_dir=Path(question["cache"]))
    locked = await _locked(gateway, channels, platforms, question["locked"])
    # Conda's own reading: 'name 1.0' and '==1.0=build' are exact, which rattler by itself takes for mistakes.
    asked = [MatchSpec(spec, strict=False) for spec in specs]
    return await solve(sources=channels, specs=asked, gateway=gateway, platforms=platforms, locked_packages=locked)


async def _locked(gateway: Any, channels: list[str], platforms: Any, locked: dict[str, str]) -> list[Any]:  # noqa: ANN401
    """Return the records of the packages (by sha256: name) that are to stay, as far as the channels still have them."""
    if not locked:
        return []
    found = await gateway.query(channels, platforms, sorted(set(locked.values())), recursive=False)
    return [record for records in found for record in records if record.sha256 and record.sha256.hex() in locked]


def _fetch(record: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "build_number": record.build_number,
        "channel": record.channel or "",
        "constrains": list(record.constrains),
        "depends": list(record.depends),
        "fn": record.file_name,
        "md5": record.md5.hex() if record.md5 else "",
        "sha256": record.sha256.hex() if record.sha256 else None,
        "size": record.size,
        "subdir": record.subdir,
        "timestamp": 0,
        "url": record.url,
    }


def _link(record: Any) -> dict[str, Any]:  # noqa: ANN401
    place = record.url.rsplit("/", 2)[0]
    stem = record.file_name.removesuffix(".conda").removesuffix(".tar.bz2")
    return {
        "base_url": place,
        "build_number": record.build_number,
        "build_string": str(record.build),
        "channel": record.channel or place,
        "dist_name": stem,
        "name": record.name.normalized,
        "platform": record.subdir,
        "version": str(record.version),
    }


def _say(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


def _fail(message: str) -> int:
    _answer({"error": message})
    _say(json.dumps({"success": False, "error": message, "message": message, "exception_name": "Unsatisfiable"}))
    return 1


def _answer(answer: dict[str, Any]) -> None:
    if path := os.environ.get("MLBOX_CONDA_ANSWER"):
        Path(path).write_text(json.dumps(answer))


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # rattler's threads go on, and an interpreter that is taken down below them can crash
