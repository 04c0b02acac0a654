"""Run by piptools.py in a process of its own: pip-tools for another Python and platform than this one.

pip cannot do that by its options alone: `--platform` and `--python-version` change neither the environment that
markers are evaluated in (pypa/pip#6117) nor, through pip-tools, the tags (jazzband/pip-tools#1382). Three seams do it:
the finder's target, the version that Requires-Python is held against, and the marker environment. Hashes come from
the index page, not from downloading every file of a release (jazzband/pip-tools#1135).
"""

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Loggers of pip whose messages are the explanation of a failure.
_EXPLAINS = "pip._internal.resolution.resolvelib.factory"
# What pip says when nothing came from the index, rather than nothing that fits.
_NETWORK = ("NewConnectionError", "NameResolutionError", "ReadTimeout", "ConnectTimeout", "MaxRetryError", "HTTPError")


def main() -> None:
    """Read the question from stdin, print the answer on stdout; everything else goes to stderr."""
    asked = json.load(sys.stdin)
    out = os.dup(1)
    os.dup2(2, 1)
    words = _Words()
    logging.getLogger("pip").addHandler(words)
    aim(asked)
    with tempfile.TemporaryDirectory(prefix="mlbox-piptools-") as folder:
        answer = _answer(asked, Path(folder), words)
    with os.fdopen(out, "w") as file:
        json.dump(answer, file)


class _Words(logging.Handler):
    """Keeps what pip says about conflicts and broken connections."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.conflict: list[str] = []
        self.network: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.name == _EXPLAINS:
            self.conflict += [line for line in text.splitlines() if line.strip() and "http" not in line]
        elif any(word in text for word in _NETWORK):
            self.network.append(text)


def aim(asked: dict[str, Any]) -> None:
    """Make pip look for files, and evaluate markers, for the target instead of this interpreter."""
    import packaging.markers
    import pip._vendor.packaging.markers
    from pip._internal.commands import install
    from pip._internal.models.target_python import TargetPython

    version = tuple(asked["version"])
    target = TargetPython(
        platforms=asked["platforms"], py_version_info=version, abis=asked["abis"], implementation="cp"
    )
    modules: tuple[Any, ...] = (packaging.markers, pip._vendor.packaging.markers)
    for module in modules:
        module.default_environment = lambda: dict(asked["environment"])
    command: Any = install.InstallCommand
    build_finder = command._build_package_finder
    make_resolver = command.make_resolver.__func__

    def finder_for_target(self: Any, options: Any, session: Any, *_args: Any, **_kwargs: Any) -> Any:  # noqa: ANN401
        return build_finder(self, options=options, session=session, target_python=target)

    def resolver_for_target(cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return make_resolver(cls, *args, **{**kwargs, "py_version_info": version})

    command._build_package_finder = finder_for_target
    command.make_resolver = classmethod(resolver_for_target)


def _answer(asked: dict[str, Any], folder: Path, words: _Words) -> dict[str, Any]:
    from pip._internal.exceptions import PipError
    from piptools.exceptions import PipToolsError
    from piptools.repositories import PyPIRepository

    repository = PyPIRepository(_options(asked), cache_dir=str(folder / "cache"))
    logging.getLogger("pip").setLevel(logging.INFO)
    logging.getLogger("pip").addHandler(words)  # pip-tools has just set up logging anew
    try:
        found = _resolve(asked, folder, repository)
        return {"packages": [_package(ireq, repository) for ireq in found]}
    except (PipError, PipToolsError, RuntimeError) as problem:
        # What pip calls a diagnostic error keeps the package apart from the message.
        lines = words.conflict or [" ".join(str(part) for part in (problem, getattr(problem, "context", "")) if part)]
        if words.network and "No matching distribution" in str(problem):
            return {"error": words.network[-1], "network": True}
        return {"error": "\n".join(dict.fromkeys(lines)), "network": _is_network(problem)}


def _is_network(problem: Exception) -> bool:
    from pip._internal.exceptions import NetworkConnectionError

    return isinstance(problem, NetworkConnectionError) or any(word in str(problem) for word in _NETWORK)


def _options(asked: dict[str, Any]) -> list[str]:
    options = ["--retries=2", "--timeout=20", "--no-input", "--disable-pip-version-check"]
    options += ["--index-url", asked["index"]] if asked["index"] else ["--no-index"]
    options += [f"--extra-index-url={url}" for url in asked["extra"]]
    options += [f"--find-links={place}" for place in asked["find_links"]]
    options += [f"--only-binary={name}" for name in asked["only_binary"]]
    options += [f"--no-binary={name}" for name in asked["no_binary"]]
    options += ["--pre"] if asked["pre"] else []
    return options + (["--cert", asked["cert"]] if asked["cert"] else [])


def _resolve(asked: dict[str, Any], folder: Path, repository: Any) -> list[Any]:  # noqa: ANN401
    from pip._internal.req.constructors import install_req_from_line
    from piptools._compat import parse_requirements
    from piptools.resolver import BacktrackingResolver
    from piptools.utils import key_from_ireq

    (folder / "constraints.txt").write_text("\n".join(asked["constraints"]))
    file = folder / "in.txt"
    file.write_text("\n".join([*asked["requirements"], "-c constraints.txt"]))
    ireqs = list(
        parse_requirements(str(file), session=repository.session, finder=repository.finder, options=repository.options)
    )
    pins = [install_req_from_line(f"{name}=={version}") for name, version in sorted(asked["preferences"].items())]
    resolver = BacktrackingResolver(
        constraints=[ireq for ireq in ireqs if ireq.match_markers()],
        existing_constraints={key_from_ireq(ireq): ireq for ireq in pins},
        repository=repository,
        allow_unsafe=True,
    )
    return list(resolver.resolve(max_rounds=20))


def _package(ireq: Any, repository: Any) -> dict[str, Any]:  # noqa: ANN401
    from piptools.utils import is_url_requirement

    version = next(iter(ireq.req.specifier)).version
    package = {
        "name": ireq.name,
        "version": version,
        "url": "",
        "subdirectory": "",
        "required_by": sorted(ireq._required_by),
        "files": [],
    }
    if is_url_requirement(ireq):
        package["url"] = ireq.link.url_without_fragment
        package["subdirectory"] = ireq.link.subdirectory_fragment or ""
        if not ireq.link.is_vcs:
            package["files"] = [_url_file(ireq, repository)]
    else:
        package["files"] = list(_files(ireq.name, version, repository))
    return package


def _files(name: str, version: str, repository: Any) -> Iterator[dict[str, str]]:  # noqa: ANN401
    for candidate in repository.find_all_candidates(name):
        link = candidate.link
        if str(candidate.version) == version:
            yield {
                "filename": link.filename,
                "url": link.url_without_fragment,
                "sha256": (link._hashes or {}).get("sha256") or _hash_of_file(link),
                "source": _source(link),
            }


def _source(link: Any) -> str:  # noqa: ANN401
    """Return the address of the index (without the project) or of the find-links that the link stands on."""
    page = getattr(link.comes_from, "url", link.comes_from)
    if page is None:
        return str(Path(link.file_path).parent) if link.is_file else ""
    return str(page).rstrip("/").rpartition("/")[0]


def _hash_of_file(link: Any) -> str:  # noqa: ANN401
    if not link.is_file:
        return ""
    with Path(link.file_path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _url_file(ireq: Any, repository: Any) -> dict[str, str]:  # noqa: ANN401
    digest = (ireq.link._hashes or {}).get("sha256") or _hash_of_file(ireq.link)
    if not digest:
        digest = next(iter(repository.get_hashes(ireq))).partition(":")[2]
    return {"filename": ireq.link.filename, "url": ireq.link.url_without_fragment, "sha256": digest}


if __name__ == "__main__":
    main()
