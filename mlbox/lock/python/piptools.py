"""Resolving with pip-tools, in a process of its own (piptools_run): what touches pip's internals stays there.

Two things differ from uv: pip asks all indexes and takes the best version of any of them, and it knows no index of
torch builds for an accelerator.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlbox import process
from mlbox.errors import FetchError, ProcessError, ResolveError
from mlbox.http import ca_bundle, redact, redact_text
from mlbox.lock.python.model import File, Pinned, Question
from mlbox.lock.python.target import marker_environment, platforms
from mlbox.lock.python.uv import index_name, transport_environment
from mlbox.lock.python.vcs import pin_commit, plain_url

_TIMEOUT = 1800.0
_PROGRAM = Path(__file__).with_name("piptools_run.py")
_GIT = re.compile(
    r"(?P<head>(?:[^@\s]+\s*@\s*)?)git\+(?P<url>[^#\s]+?)(?:@(?P<ref>[^@#/\s][^@#\s]*))?(?P<tail>#\S+)?(?P<rest>\s.*)?"
)


class _Answer(msgspec.Struct):
    """What piptools_run prints: packages, or why there are none."""

    packages: list[dict[str, Any]] = []
    error: str = ""
    network: bool = False


def resolve_with_piptools(question: Question) -> tuple[Pinned, ...]:
    """Answer `question`; ResolveError carries pip's own explanation."""
    if question.pinned_pages:
        raise ResolveError("pip-tools cannot take a package from one index only", hint="use --resolver uv")
    if question.overrides:
        raise ResolveError("pip-tools cannot override what packages ask for", hint="use --resolver uv")
    commits: dict[str, str] = {}
    asked = _asked(question, [_with_commit(line, commits) for line in question.requirements])
    env = {**transport_environment(), "PIP_CONFIG_FILE": "/dev/null", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    argv = [sys.executable, "-P", str(_PROGRAM)]
    try:
        done = process.run(argv, env=env, stdin=msgspec.json.encode(asked), timeout=_TIMEOUT)
    except ProcessError as problem:
        last = problem.stderr.strip().splitlines()[-1:] or [problem.message]
        raise ResolveError(f"pip-tools failed: {_clean(last[0])}", hint="use --resolver uv") from problem
    answer = msgspec.json.decode(done.stdout, type=_Answer)
    if answer.error:
        raise _explain(answer, question)
    requires = _requires(answer.packages)
    found = (_pinned(package, requires.get(package["name"], ()), commits, question) for package in answer.packages)
    return tuple(sorted(found, key=lambda pinned: pinned.name))


def _asked(question: Question, requirements: list[str]) -> dict[str, Any]:
    target = question.target
    default = question.indexes.default
    return {
        "requirements": requirements,
        # No version is below the lowest: the resolver fails before it fetches anything of that name.
        "constraints": (*question.constraints, *(f"{name}<0.dev0" for name in question.absent)),
        "preferences": question.preferences,
        "version": [int(part) for part in re.findall(r"[0-9]+", target.python_full)[:3]],
        "abis": [f"cp{target.python.replace('.', '')}", "abi3", "none"],
        "platforms": list(platforms(target)),
        "environment": marker_environment(target),
        "index": default.url if default else "",
        "extra": [index.url for index in question.indexes.extra],
        "find_links": question.indexes.find_links,
        "pre": question.pre,
        "only_binary": question.only_binary,
        "no_binary": question.no_binary,
        "cert": ca_bundle(),
    }


def _with_commit(line: str, commits: dict[str, str]) -> str:
    """Pin a git requirement to the commit that its branch or tag has now, which pip would not tell us."""
    match = _GIT.fullmatch(line.strip())
    if match is None:
        return line
    commit = pin_commit(match["url"], match["ref"] or "HEAD")
    commits[plain_url(match["url"])] = commit
    return f"{match['head']}git+{match['url']}@{commit}{match['tail'] or ''}{match['rest'] or ''}"


def _requires(packages: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    requires: dict[str, set[str]] = {package["name"]: set() for package in packages}
    for package in packages:
        for parent in package["required_by"]:
            requires.setdefault(parent, set()).add(package["name"])
    return {name: tuple(sorted(found)) for name, found in requires.items()}


def _pinned(
    package: Mapping[str, Any], requires: tuple[str, ...], commits: Mapping[str, str], question: Question
) -> Pinned:
    name, version, url = str(package["name"]), str(package["version"]), str(package["url"])
    if url.startswith("git+"):
        plain = plain_url(url.removeprefix("git+"))
        found = next((place for place in commits if plain.startswith(f"{place}@")), plain.rpartition("@")[0])
        return Pinned(
            name=name,
            version=version,
            kind="vcs",
            index="git",
            url=found,
            commit=commits.get(found, plain.rpartition("@")[2]),
            subdirectory=str(package["subdirectory"]),
            requires=requires,
        )
    files = tuple(_file(entry, name) for entry in package["files"])
    if url:
        return Pinned(
            name=name, version=version, kind="archive", index="direct", url=url, files=files, requires=requires
        )
    if (question.torch_backend or question.torch_pages) and name == "torch":
        raise ResolveError(
            f"the resolver pip-tools knows no index of torch builds for accelerator = {question.target.accelerator!r}",
            hint="use --resolver uv, pass --find-links with a folder that has them, "
            "or set accelerator = 'default' to take what the default index has",
        )
    source = files[0].source if files else ""
    index = index_name(source, question)
    return Pinned(name=name, version=version, index=index, files=tuple(f.plain() for f in files), requires=requires)


class _SourcedFile(File, frozen=True, kw_only=True):
    source: str = ""

    def plain(self) -> File:
        return File(filename=self.filename, url=self.url, sha256=self.sha256, size=self.size)


def _file(entry: Mapping[str, Any], name: str) -> _SourcedFile:
    if not entry["sha256"]:
        raise FetchError(
            f"{name}: the index gives no sha256 for {entry['filename']}",
            hint="mlbox locks files by sha256: use another index",
        )
    return _SourcedFile(
        filename=entry["filename"], url=entry["url"], sha256=entry["sha256"], source=entry.get("source", "")
    )


def _explain(answer: _Answer, question: Question) -> ResolveError | FetchError:
    text = _readable(answer.error, question)
    if name := next((name for name in question.absent if re.search(rf"\b{re.escape(name)}\b", text)), ""):
        return ResolveError(
            f"{name} is a folder of the project, and a package of an index asks for it\n{text}",
            hint="--resolver uv leaves out what is a folder",
        )
    if answer.network:
        where = redact(question.indexes.default.url) if question.indexes.default else "find-links"
        hint = f"is this machine online, and is the index right? it is {where} (from {question.indexes.origin})"
        return FetchError(f"the index cannot be read\n{text}", hint=hint)
    if "No matching distribution" in text or "(from versions: none)" in text:
        hint = "check name and version; a package of another index needs [tool.mlbox] extra-index-urls or --find-links"
        return ResolveError(f"no set of versions fits\n{text}", hint=hint)
    return ResolveError(f"no set of versions fits\n{text}", hint="loosen one of the requirements named above")


def _readable(text: str, question: Question) -> str:
    """Name requirements by their text instead of a line of a temporary file, and drop pip's general advice."""

    def named(match: re.Match[str]) -> str:
        number = int(match[1])
        return question.requirements[number - 1] if number <= len(question.requirements) else "a requirement"

    text = re.sub(r"-r \S+/in\.txt \(line ([0-9]+)\)", named, _clean(text))
    text = re.sub(r"\(from versions: [^)]*, ([^,)]+, [^,)]+, [^,)]+)\)", r"(the last ones are \1)", text)
    text = re.sub(r"Retrying .* after connection broken by", "connection broken by", text)
    dropped = re.compile(
        r"Ignored the following|To fix this you could|[0-9]\. (loosen|remove) |Additionally, some packages"
    )
    lines = [line for line in text.splitlines() if not dropped.match(line.strip())]
    return "\n".join(lines)


def _clean(text: str) -> str:
    return redact_text(text).strip()
