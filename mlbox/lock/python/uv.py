"""Resolving with uv, run as a program that sees nothing of the host's configuration but what it is given."""

import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from mlbox import process
from mlbox.codec import quoted
from mlbox.errors import FetchError, ProcessError, ResolveError
from mlbox.http import ca_bundle, is_offline, redact, redact_text, without_credentials
from mlbox.lock.python.model import File, Indexes, Page, Pinned, Question
from mlbox.lock.python.target import MACHINES
from mlbox.lock.python.vcs import plain_url

_TIMEOUT = 900.0
# The manylinux platforms that `uv pip compile --python-platform` knows.
_GLIBCS = (17, 28, *range(31, 41))
_FINDING = Lock()
_TORCH_FOLDER = "torch-index"
_PINNED = "pinned"
_DEFAULT = "default = true\n"
# uv keeps it beside each answer in its cache, so the next runs ask nothing again. The public index says ten minutes.
_LASTING = 'cache-control = { api = "max-age=60", files = "max-age=60" }\n'
_PASSED = ("UV_CACHE_DIR", "XDG_CACHE_HOME", "SSH_AUTH_SOCK", "GIT_SSL_CAINFO", "NETRC")


def resolve_with_uv(question: Question) -> tuple[Pinned, ...]:
    """Answer `question`; ResolveError carries uv's own explanation."""
    with tempfile.TemporaryDirectory(prefix="mlbox-uv-") as name:
        folder = Path(name)
        for page in question.torch_pages:
            _write_page(folder / _TORCH_FOLDER, page)
        for index, page in question.pinned_pages:
            _write_page(folder / _PINNED / index, page)
        (folder / "uv.toml").write_text(_config(question, folder))
        pins = _pins(question, folder)
        answer = _files(question, folder, pins)
    document = tomllib.loads(answer)
    requires = _requires(pins)
    return tuple(
        _pinned(package, pins.get(str(package["name"]), _Pin()), requires.get(str(package["name"]), ()), question)
        for package in sorted(document.get("packages", []), key=lambda package: str(package["name"]))
    )


def _write_page(index: Path, page: Page) -> None:
    """Write one project's page into an index of this machine (PEP 503)."""
    place = index / page.name
    place.mkdir(parents=True)
    (place / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{page.html}</body></html>\n")


class _Pin:
    """A line of the annotated output: who asked for the package and which index has it."""

    def __init__(self, version: str = "") -> None:
        self.version = version
        self.via: list[str] = []
        self.source = ""


def _pins(question: Question, folder: Path) -> dict[str, _Pin]:
    """Resolve, and return version, reason and index of each package.

    The files are asked for in a second run, which takes everything from uv's cache: pylock.toml has files but no
    reasons, requirements.txt has reasons but no files.
    """
    (folder / "in.txt").write_text("".join(f"{line}\n" for line in question.requirements))
    (folder / "constraints.txt").write_text("".join(f"{line}\n" for line in question.constraints))
    # What a marker that never holds asks for, uv does not look for.
    overrides = [*question.overrides, *(f"{name} ; python_version < '0'" for name in question.absent)]
    (folder / "overrides.txt").write_text("".join(f"{line}\n" for line in overrides))
    output = folder / "pins.txt"
    output.write_text("".join(f"{name}=={version}\n" for name, version in sorted(question.preferences.items())))
    style = ["--no-header", "--annotation-style", "split", "--emit-index-annotation", "--quiet"]
    _compile(question, folder, [*style, "--output-file", str(output)])
    return parse_pins(output.read_text())


def _files(question: Question, folder: Path, pins: "Mapping[str, _Pin]") -> str:
    """Return the pylock.toml of what was just resolved, from uv's cache where it suffices."""
    options = ["--format", "pylock.toml", "--constraints", str(_exact(pins, folder))]
    try:
        return _compile(question, folder, [*options, "--offline"])
    except (ResolveError, FetchError):  # a cache that keeps nothing, or was emptied meanwhile
        return _compile(question, folder, options)


def parse_pins(text: str) -> "dict[str, _Pin]":
    """Read uv's requirements.txt output with annotations."""
    pins: dict[str, _Pin] = {}
    current = _Pin()
    in_via = False
    for line in text.splitlines():
        note = line.strip().removeprefix("#").strip()
        if line and not line[0].isspace() and not line.startswith("#"):
            name, version = _name_and_version(line)
            current = pins[name] = _Pin(version)
            in_via = False
        elif note.startswith("from "):
            current.source = note.removeprefix("from ").strip()
            in_via = False
        elif note == "via" or note.startswith("via "):
            in_via = True
            current.via.append(note.removeprefix("via").strip())
        elif in_via:
            current.via.append(note)
    return pins


def _name_and_version(line: str) -> tuple[str, str]:
    spec = line.split(" ;")[0].split(" \\")[0].strip()
    if spec.startswith("-e "):
        return "", ""
    name, equals, version = spec.partition("==")
    if equals and " @ " not in name:
        return name.strip(), version.strip()
    return spec.partition(" @ ")[0].strip(), ""


def _exact(pins: Mapping[str, _Pin], folder: Path) -> Path:
    path = folder / "exact.txt"
    path.write_text("".join(f"{name}=={pin.version}\n" for name, pin in pins.items() if pin.version))
    return path


def _compile(question: Question, folder: Path, extra: list[str]) -> str:
    argv = [
        *(_program(), "pip", "compile", str(folder / "in.txt"), "--constraints", str(folder / "constraints.txt")),
        *("--overrides", str(folder / "overrides.txt")),
        *(
            "--config-file",
            str(folder / "uv.toml"),
            "--no-progress",
            "--color",
            "never",
            "--no-sources",
            "--keyring-provider",
            "disabled",
        ),
        *("--python", sys.executable, "--python-version", question.target.python_full),
        *("--python-platform", _platform(question)),
        *_options(question),
        *extra,
    ]
    try:
        done = process.run(argv, env=_environment(), cwd=folder, timeout=_TIMEOUT)
    except ProcessError as problem:
        raise explain(problem.stderr or problem.message, question, folder) from problem
    return done.stdout.decode()


def _options(question: Question) -> list[str]:
    options = [f"--find-links={link}" for link in question.indexes.find_links]
    options += [f"--only-binary={name}" for name in question.only_binary]
    options += [f"--no-binary={name}" for name in question.no_binary]
    if (
        question.indexes.default is None
        and not question.indexes.extra
        and not question.torch_pages
        and not question.pinned_pages
    ):
        options.append("--no-index")
    if question.pre:
        options.append("--prerelease=allow")
    if question.torch_backend:
        options.append(f"--torch-backend={question.torch_backend}")
    if not ca_bundle():
        options.append("--system-certs")
    return options


def _config(question: Question, folder: Path) -> str:
    """Return the configuration with all indexes, the first one asked first.

    It is a file of the private folder: a command line every user could read.
    """
    control = _LASTING if question.lasting else ""
    tables = [
        f"[[index]]\n{name}url = {quoted(url)}\n{default}{control}" for name, url, default in _indexes(question, folder)
    ]
    return "\n".join(tables)


def _indexes(question: Question, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the line with the name, the address and the line that makes it the default, of each index."""
    for index in dict.fromkeys(index for index, _ in question.pinned_pages):
        yield f"name = {quoted(index)}\n", (folder / _PINNED / index).as_uri(), ""
    default = question.indexes.default
    if question.torch_pages:  # first, and only some projects: uv asks the others of what this one does not have
        yield 'name = "torch"\n', (folder / _TORCH_FOLDER).as_uri(), "" if default else _DEFAULT
    for extra in question.indexes.extra:
        yield f"name = {quoted(extra.name)}\n", extra.url, ""
    if default:
        yield "", default.url, _DEFAULT


def _environment() -> dict[str, str]:
    """Return uv's environment."""
    env = transport_environment()
    env.update(
        UV_HTTP_TIMEOUT=os.environ.get("UV_HTTP_TIMEOUT", "20"),
        UV_HTTP_RETRIES=os.environ.get("UV_HTTP_RETRIES", "2"),
        NO_COLOR="1",
    )
    if is_offline():
        env["UV_OFFLINE"] = "1"
    return env


def transport_environment() -> dict[str, str]:
    """Return what a resolver needs of the host: caches, certificates, an SSH agent; none of its configuration."""
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    env["GIT_TERMINAL_PROMPT"] = "0"
    if bundle := ca_bundle():
        env["SSL_CERT_FILE"] = bundle
    return env


def _program() -> str:
    from uv import find_uv_bin

    try:
        with _FINDING:  # it asks sysconfig, which is not made for two threads that are the first to ask
            return str(find_uv_bin())
    except FileNotFoundError as problem:
        raise ResolveError(
            "uv's program is missing", hint="install mlbox again, or use --resolver pip-tools"
        ) from problem


def _platform(question: Question) -> str:
    minor = int(question.target.glibc.split(".")[1])
    known = max((glibc for glibc in _GLIBCS if glibc <= minor), default=_GLIBCS[0])
    return f"{MACHINES[question.target.arch]}-manylinux_2_{known}"


def _pinned(package: Mapping[str, Any], pin: _Pin, requires: tuple[str, ...], question: Question) -> Pinned:
    common: dict[str, Any] = {
        "name": str(package["name"]),
        "version": str(package.get("version", pin.version)),
        "requires": requires,
    }
    if (vcs := package.get("vcs")) is not None:
        return Pinned(
            **common,
            kind="vcs",
            index="git",
            url=plain_url(str(vcs.get("url") or vcs.get("path"))),
            commit=str(vcs["commit-id"]),
            subdirectory=str(vcs.get("subdirectory", "")),
        )
    if (archive := package.get("archive")) is not None:
        file = _file(archive)
        subdirectory = str(archive.get("subdirectory", ""))
        return Pinned(**common, kind="archive", index="direct", url=file.url, files=(file,), subdirectory=subdirectory)
    if (directory := package.get("directory")) is not None:
        return Pinned(**common, kind="directory", index="direct", url=str(directory["path"]))
    files = [_file(wheel) for wheel in package.get("wheels", [])]
    if "sdist" in package:
        files.append(_file(package["sdist"]))
    return Pinned(**common, index=index_name(pin.source, question), files=tuple(files))


def _requires(pins: Mapping[str, _Pin]) -> dict[str, tuple[str, ...]]:
    """Turn 'who asked for it' around: package -> what it asked for."""
    requires: dict[str, set[str]] = {name: set() for name in pins}
    for name, pin in pins.items():
        for parent in pin.via:
            if parent in requires:
                requires[parent].add(name)
    return {name: tuple(sorted(found)) for name, found in requires.items()}


def index_name(source: str, question: Question) -> str:
    """Return the name that the lock has for the index at address `source`."""
    plain = _plain_place(source)
    if not plain:  # uv says nothing of a file that a find-links has
        return "find-links" if question.indexes.find_links else "default"
    for index_of_pin, _ in question.pinned_pages:
        if plain.endswith(f"/{_PINNED}/{index_of_pin}"):
            return index_of_pin
    if question.torch_pages and plain.endswith(f"/{_TORCH_FOLDER}"):
        return "torch"
    for index in question.indexes.all:
        if plain == _plain_place(index.url):
            return index.name
    if any(plain == _plain_place(link) for link in question.indexes.find_links):
        return "find-links"
    return "torch" if question.torch_backend else "default"


def _plain_place(link: str) -> str:
    return without_credentials(link).removeprefix("file://").rstrip("/")


def _file(table: Mapping[str, Any]) -> File:
    url = str(table.get("url") or Path(str(table["path"])).absolute().as_uri())
    filename = str(table.get("name") or unquote(urlsplit(url).path.rpartition("/")[2]))
    hashes = table.get("hashes", {})
    if "sha256" not in hashes:
        raise FetchError(
            f"{filename}: the index gives no sha256", hint="mlbox locks files by sha256: use another index"
        )
    return File(filename=filename, url=url, sha256=str(hashes["sha256"]), size=int(table.get("size", 0)))


def explain(stderr: str, question: Question, folder: Path) -> ResolveError | FetchError:
    """Make uv's complaint readable: no colours, temporary paths or credentials, and a hint for the usual causes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", stderr)
    text = redact_text(text).replace(f"{folder}/", "")
    lines = [re.sub(r"^(error: |  cause: |  help: | {9})", "", line) for line in text.strip().splitlines()]
    noise = r"\s*(Resolved|Updating|Using|warning:) |No solution found when resolving"
    lines = [line for line in lines if not re.match(noise, line)]
    body = "\n".join(
        line.replace("you require", "the project requires").replace("your requirements", "the requirements")
        for line in lines
    ).strip()
    if question.torch_backend and "/whl/" in text and ("fetch" in text or "dns error" in text):
        return FetchError(
            f"the index of torch builds for accelerator = {question.torch_backend!r} cannot be reached\n{body}",
            hint="pass --find-links with a folder that has them, name a mirror of it (MLBOX_TORCH_INDEX), "
            "or set accelerator = 'default' to take what the default index has",
        )
    if re.search(r"Failed to fetch|error sending request|operation timed out|Network connectivity is disabled", text):
        hint = f"is this machine online, and is the index right? it is {_unreached(text, question.indexes)}"
        return FetchError(f"the index cannot be read\n{body}", hint=hint)
    return ResolveError(f"no set of versions fits\n{body}", hint=_resolve_hint(text))


def _unreached(text: str, indexes: Indexes) -> str:
    """Return which index uv could not reach; only of the default one is it known who named it."""
    for index in indexes.all:
        if index != indexes.default and (url := redact(index.url).rstrip("/")) in text:
            return url
    where = redact(indexes.default.url) if indexes.default else "find-links"
    return f"{where} (from {indexes.origin})"


def _resolve_hint(text: str) -> str:
    if "pip was not found in the" in text:  # nobody asked for it: images get one
        return "the index has no pip, which images get: pip = false in [tool.mlbox] leaves it out"
    if "was not found in the" in text:
        return "check the spelling; a package of another index needs [tool.mlbox] extra-index-urls or --find-links"
    if "no wheels with a matching" in text or "Python requirement" in text or "requires-python" in text.lower():
        return "another Python may have them: set python in [tool.mlbox]"
    if "unsatisfiable" in text:
        return "loosen one of the requirements named above"
    return "the resolver's own words are above"
