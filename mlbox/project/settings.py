"""[tool.mlbox] of pyproject.toml, or mlbox.toml: read, checked, and every problem told at once."""

import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from mlbox.errors import ProjectError, UsageError
from mlbox.oci.reference import parse_reference
from mlbox.project.building import architecture, check_build
from mlbox.project.model import ACCELERATOR, AptSource, BuildOptions, Health, RunStep, Settings, Task
from mlbox.project.problems import Problems, did_you_mean
from mlbox.project.requirement import without_credentials

T = TypeVar("T", bound=msgspec.Struct)

FILE = "mlbox.toml"

_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_EXACT_PYTHON = re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?")
DEB = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_APT_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_APT_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_/-]*|\.?/")
_APT_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_/-]*")
_SNAPSHOT = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\dZ)?")
_SHARED = re.compile(r"\S+\.so\S*|GLIBC_2\.[0-9]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
_URL = re.compile(r"(https?|file)://\S+")
_MOST_STEPS = 32
_RESERVED = ("/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/lib", "/opt/mlbox")
_NAMED_BASES = ("debian", "auto")
_COMMANDS = ("command", "entrypoint")


class Where:
    """Names a setting in messages: 'pyproject.toml [tool.mlbox.train.port]', 'mlbox.toml [train.port]'."""

    def __init__(self, file: str, overrides: Iterable[str] = (), stated: Iterable[str] = ()) -> None:
        self.file = file
        self._stated = frozenset((*overrides, *stated))
        self._above = "" if file == FILE else "tool.mlbox"
        self._overrides = frozenset(overrides)

    def __call__(self, dotted: str) -> str:
        key = re.split(r"[.\[]", dotted, maxsplit=1)[0]
        if key in self._overrides:
            flag = "from" if key == "requirements" else key
            return f"--{flag.removesuffix('s') if key in ('extras', 'groups', 'accelerators') else flag}"
        return f"{self.file} [{self.table(dotted)}]"

    def states(self, *keys: str) -> bool:
        """Whether one of `keys` is written down or given on the command line."""
        return not self._stated.isdisjoint(keys)

    def table(self, dotted: str) -> str:
        """Return the whole key, as it is written in the file."""
        return ".".join(filter(None, (self._above, dotted)))


def read_settings(table: Mapping[str, Any], where: Where, problems: Problems) -> Settings:
    """Return the settings in `table`; what is unknown or of a wrong type is a problem and left at its default."""
    return _read(Settings, table, where, "", problems) or Settings()


def _read(kind: type[T], table: Mapping[str, Any], where: Where, above: str, problems: Problems) -> T | None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        dotted = f"{above}.{key}" if above else key
        if key not in fields:
            problems.add(where(dotted), "unknown key", did_you_mean(key, fields))
            continue
        with problems.at(where(dotted)):
            values[fields[key].name] = _value(fields[key].type, value, where, dotted, problems)
    missing = [field for field in fields.values() if field.required and field.name not in values]
    for field in missing:
        if field.encode_name not in table:
            problems.add(where(above), f"{field.encode_name} is missing", f'write {field.encode_name} = "..."')
    return None if missing else kind(**values)


def _value(kind: Any, value: object, where: Where, dotted: str, problems: Problems) -> object:  # noqa: ANN401 (a type form)
    if kind == dict[str, Task] and isinstance(value, dict):
        read = {name: _value(Task, task, where, f"{dotted}.{name}", problems) for name, task in value.items()}
        return {name: task for name, task in read.items() if task is not None}
    if kind == dict[str, BuildOptions] and isinstance(value, dict):
        found = {name: _value(BuildOptions, one, where, f"{dotted}.{name}", problems) for name, one in value.items()}
        return {name: one for name, one in found.items() if one is not None}
    struct = next((option for option in (Task, Health, BuildOptions) if kind in (option, option | None)), None)
    if struct is not None:
        if not isinstance(value, dict):
            raise ProjectError("must be a table")
        return _read(struct, value, where, dotted, problems)
    listed = next((option for option in (AptSource, RunStep) if kind == tuple[option, ...]), None)  # type: ignore[valid-type]
    if listed is not None:
        return _tables(listed, value, where, dotted, problems)
    if isinstance(value, str) and dotted.split(".")[-1] in _COMMANDS:
        value = _words(value)
    return _converted(kind, value)


def _tables(kind: type[T], value: object, where: Where, dotted: str, problems: Problems) -> tuple[T, ...]:
    if kind is RunStep and isinstance(value, list):
        value = [_with_shell(item) for item in value]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ProjectError("must be a list of tables", hint='like [{ ... = "..." }]')
    read = [_read(kind, item, where, f"{dotted}[{number}]", problems) for number, item in enumerate(value)]
    return tuple(item for item in read if item is not None)


def _with_shell(item: object) -> object:
    """Return a step as a table; a command that is one string is for a shell, as in a Dockerfile's RUN."""
    table = {"command": item} if isinstance(item, str | list) else item
    if isinstance(table, dict) and isinstance(command := table.get("command"), str):
        return {**table, "command": ["/bin/sh", "-ec", command]}
    return table


def _words(command: str) -> list[str]:
    """Split a command written as one string as a shell would; nothing is expanded."""
    try:
        return shlex.split(command)
    except ValueError as problem:
        raise ProjectError(f"{command!r}: {problem}") from problem


def _converted(kind: Any, value: object) -> object:  # noqa: ANN401 (a type form)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        message = re.sub(r" - at `.*`$", "", str(problem)).replace("`", "")
        quoted = "write it in quotes" if re.search(r"Expected str, got (int|float|bool)", message) else None
        listed = 'write it as a list: ["..."]' if "Expected array, got str" in message else None
        raise ProjectError(message[:1].lower() + message[1:], hint=quoted or listed) from problem


def check_settings(settings: Settings, where: Where, root: Path, problems: Problems) -> None:
    """Collect what is of the right type and still impossible."""
    _check_target(settings, where, problems)
    _check_sources(settings, where, root, problems)
    _check_apt(settings, where, root, problems)
    _check_image(settings, where, problems)
    for number, step in enumerate(settings.run):
        _check_step(f"run[{number}]", step, where, problems)
    if len(settings.run) > _MOST_STEPS:
        hint = "join commands: each is a layer"
        problems.add(where("run"), f"{len(settings.run)} commands; at most {_MOST_STEPS} are possible", hint)
    _check_building(settings, where, problems)
    tasks = {"train": settings.train, "serve": settings.serve}
    for name in settings.tasks:
        if name in tasks or not _TASK.fullmatch(name):
            hint = f"declare it as [{where.table(name)}]" if name in tasks else "letters, digits, '-' and '_'"
            problems.add(where(f"tasks.{name}"), f"{name!r} cannot name a task here", hint)
    tasks |= {f"tasks.{name}": task for name, task in settings.tasks.items()}
    for key, task in tasks.items():
        if task is not None:
            _check_task(key, task, where, problems)


def _check_target(settings: Settings, where: Where, problems: Problems) -> None:
    _check_base(settings, where, problems)
    python = _PYTHON if settings.base in _NAMED_BASES else _EXACT_PYTHON
    if settings.python and not python.fullmatch(settings.python):
        hint = 'write python = "3.11"; which 3.11.x it is, the base decides'
        problems.add(where("python"), f"{settings.python!r} is no Python version", hint)
    _check_accelerators(settings, where, problems)
    lists = {
        "system-packages": settings.system_packages,
        "configure": settings.configure,
        "build-packages": settings.build_packages,
    }
    for key, names in lists.items():
        for name in names:
            if not DEB.fullmatch(name):
                hint = (
                    "only the name; the lock pins the version" if re.search("[=:/]", name) else "like libgl1 or ffmpeg"
                )
                problems.add(where(key), f"{name!r} is no Debian package name", hint)
    for name in settings.allow_missing:
        if not _SHARED.fullmatch(name):
            problems.add(where("allow-missing"), f"{name!r} is no shared library", 'like "libGL.so.1"')


def _check_accelerators(settings: Settings, where: Where, problems: Problems) -> None:
    several, indexes = settings.accelerators, settings.accelerator_indexes
    named = [("accelerator", settings.accelerator), *(("accelerators", name) for name in several)]
    for key, name in (*named, *((f"accelerator-indexes.{name}", name) for name in indexes)):
        if not ACCELERATOR.fullmatch(name):
            hint = "cpu, xpu, a CUDA or ROCm version like cu126 or rocm6.4, or default: what the index itself has"
            problems.add(where(key), f"unknown accelerator {name!r}", hint)
    for name in sorted({name for name in several if several.count(name) > 1}):
        problems.add(where("accelerators"), f"{name!r} stands there twice", "name each once")
    if several and settings.accelerator != Settings().accelerator:
        problems.add(where("accelerator"), "accelerators is there too", "keep one of the two")
    for name in sorted(set(settings.extras) & set(several)):
        hint = "take it out of extras: it is part of what is locked for that accelerator"
        problems.add(where("extras"), f"{name!r} is one of the accelerators too", hint)
    for name, address in indexes.items():
        if not _URL.fullmatch(address):
            shown = without_credentials(address)
            problems.add(
                where(f"accelerator-indexes.{name}"), f"{shown!r} is no address of an index", "write https://HOST/PATH"
            )


def _check_base(settings: Settings, where: Where, problems: Problems) -> None:
    if settings.base not in _NAMED_BASES:
        hint = '"debian", "auto", or an image of a registry: "docker.io/library/python:3.12-slim"'
        _check_reference("base", settings.base, hint, where, problems)


def _check_reference(key: str, name: str, hint: str, where: Where, problems: Problems) -> None:
    try:
        parse_reference(name)
    except UsageError:
        # What stands before an '@' may be a password.
        problems.add(where(key), f"{name[:100].rpartition('@')[2]!r} is no name of an image", hint)


def _check_building(settings: Settings, where: Where, problems: Problems) -> None:
    if settings.build_base:
        hint = 'an image with the compilers: "docker.io/nvidia/cuda:12.8.1-devel-ubuntu24.04"'
        _check_reference("build-base", settings.build_base, hint, where, problems)
    for one in settings.gpu_architectures:
        if architecture(one) is None:
            problems.add(where("gpu-architectures"), f"{one!r} is no architecture of a GPU", 'like "8.0" or "sm_90"')
    for name, options in settings.build.items():
        _check_env(f"build.{name}.env", options.env, where, problems)
        check_build(name, options, lambda key, message, hint: problems.add(where(key), message, hint))


def _check_sources(settings: Settings, where: Where, root: Path, problems: Problems) -> None:
    for file in settings.requirements:
        problem = outside(file) or ("" if (root / file).is_file() else "does not exist")
        if problem:
            problems.add(where("requirements"), f"{file!r} {problem}", "paths are relative to the project's folder")
    for key, addresses in (("index-url", (settings.index_url,)), ("extra-index-urls", settings.extra_index_urls)):
        for address in filter(None, addresses):
            if not _URL.fullmatch(address):
                shown = without_credentials(address)
                problems.add(where(key), f"{shown!r} is no address of an index", "write https://HOST/PATH")


def _check_apt(settings: Settings, where: Where, root: Path, problems: Problems) -> None:
    if settings.snapshot and not _is_time(settings.snapshot):
        hint = 'write snapshot = "2026-09-01", or a second of it: "2026-09-01T12:00:00Z"'
        problems.add(where("snapshot"), f"{settings.snapshot[:40]!r} is no date", hint)
    names: set[str] = set()
    for number, source in enumerate(settings.apt_sources):
        key = f"apt-sources[{number}]"
        for field, problem, hint in _apt_problems(source, root):
            problems.add(where(f"{key}.{field}"), problem, hint)
        if source.name in names:
            problems.add(where(f"{key}.name"), f"{source.name!r} stands there twice", "each source has a name")
        names.add(source.name)


def _apt_problems(source: AptSource, root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield field, problem and hint of what cannot be in a source of packages."""
    if len(source.name) > 40 or not _APT_NAME.fullmatch(source.name):
        yield "name", f"{source.name[:60]!r} is no name", "lower-case letters, digits and '-', like llvm"
    shown = without_credentials(source.uri)
    if shown != source.uri:
        hint = "a password belongs into ~/.netrc, or into the address that MLBOX_APT_SOURCE_<NAME> holds"
        yield "uri", f"{shown!r} has a user or password in it", hint
    elif source.uri and not _URL.fullmatch(source.uri):
        yield "uri", f"{shown!r} is no address of an archive", "what stands before the suite in a line of apt"
    flat = source.suite.endswith("/")
    if not _APT_SUITE.fullmatch(source.suite) or ".." in source.suite.split("/"):
        yield "suite", f"{source.suite[:60]!r} is no suite", 'like "bookworm", or a folder: "./"'
    elif flat == bool(source.components):
        says = "a folder has none" if flat else 'like components = ["main"]'
        yield "components", "does not fit the suite", says
    for component in source.components:
        if not _APT_COMPONENT.fullmatch(component) or ".." in component.split("/"):
            yield "components", f"{component[:60]!r} is no component", 'like "main"'
    if problem := outside(source.key) or ("" if (root / source.key).is_file() else "does not exist"):
        yield "key", f"{source.key[:200]!r} {problem}", "the public key of the archive, a file of the project"


def _is_time(text: str) -> bool:
    if not _SNAPSHOT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_image(settings: Settings, where: Where, problems: Problems) -> None:
    workdir = PurePosixPath(settings.workdir)
    if not workdir.is_absolute() or ".." in workdir.parts or "\0" in settings.workdir:
        problems.add(where("workdir"), f"{settings.workdir!r} is no absolute path", 'like "/workspace"')
    elif str(workdir) == "/" or any(workdir.is_relative_to(taken) for taken in _RESERVED):
        problems.add(where("workdir"), f"{settings.workdir!r} belongs to the system", 'like "/workspace"')
    if settings.user and not _USER.fullmatch(settings.user):
        problems.add(where("user"), f"{settings.user!r} is no user", 'write "1000", "1000:1000" or a name')
    _check_env("env", settings.env, where, problems)
    for key, words in (("command", settings.command), ("entrypoint", settings.entrypoint), ("ignore", settings.ignore)):
        if any("\0" in word for word in words):
            problems.add(where(key), "has a NUL byte")
    for key, value in settings.labels.items():
        if not key or "\0" in key + value:
            problems.add(where("labels"), f"{key!r} cannot be a label")


def _check_step(key: str, step: RunStep, where: Where, problems: Problems) -> None:
    words = (*step.command, *step.env.values())
    if not step.command or not all(step.command) or not step.command[-1].strip() or any("\0" in word for word in words):
        problems.add(where(f"{key}.command"), "is no command", 'write "python -m nltk.downloader punkt"')
    if any(without_credentials(word) != word for word in words):
        hint = "name a variable in secrets, and read it from /run/secrets: every image keeps what stands here"
        problems.add(where(key), "has an address with a user or password in it", hint)
    _check_env(f"{key}.env", step.env, where, problems)
    for name in step.inputs:
        if problem := outside(name):
            problems.add(where(f"{key}.inputs"), f"{name!r} {problem}", "name files or folders of the project")
    for name in step.secrets:
        if not _VARIABLE.fullmatch(name):
            problems.add(where(f"{key}.secrets"), f"{name!r} is no name for an environment variable", "like HF_TOKEN")


def _check_env(key: str, env: Mapping[str, str], where: Where, problems: Problems) -> None:
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name):
            problems.add(where(key), f"{name!r} is no name for an environment variable", "letters, digits and '_'")
        if "\0" in value:
            problems.add(where(f"{key}.{name}"), "has a NUL byte")


def _check_task(key: str, task: Task, where: Where, problems: Problems) -> None:
    def wrong(setting: str, message: str, hint: str = "") -> None:
        problems.add(where(f"{key}.{setting}"), message, hint)

    if not task.command or not task.command[0] or any("\0" in word for word in task.command):
        wrong("command", "is no command", 'write command = "python train.py"')
    for setting, folders in (("outputs", (task.outputs,) if task.outputs else ()), ("inputs", task.inputs)):
        for folder in folders:
            if problem := outside(folder):
                wrong(setting, f"{folder!r} {problem}", "name a folder below the project")
    for folder in task.inputs:
        if task.outputs and _overlap(folder, task.outputs):
            wrong("outputs", f"{task.outputs!r} overlaps the input {folder!r}", "inputs are read-only")
    if key == "serve" and not task.port:
        wrong("port", "is missing", "say where the service listens: port = 8000")
    if not 0 <= task.port <= 65535:
        wrong("port", f"{task.port} is no port", "1 to 65535")
    _check_env(f"{key}.env", task.env, where, problems)
    if task.health:
        _check_health(task, task.health, wrong)


def _check_health(task: Task, health: Health, wrong: Callable[[str, str, str], None]) -> None:
    if not task.port:
        wrong("health", "needs a port to ask", "add port = 8000, or take health out")
    if not re.fullmatch(r"/[!-~]*", health.path):
        wrong("health.path", f"{health.path!r} is no path of a URL", 'like "/health"')
    if not (math.isfinite(health.timeout) and health.timeout > 0):
        wrong("health.timeout", f"{health.timeout} is no number of seconds", "like 60")


def outside(path: str) -> str:
    """Say why `path` is no place below the project; empty when it is one."""
    pure = PurePosixPath(path)
    if not path or "\0" in path or pure == PurePosixPath():
        return "is no path below the project"
    if pure.is_absolute() or ".." in pure.parts:
        return "leaves the project's folder"
    return ""


def _overlap(one: str, other: str) -> bool:
    first, second = PurePosixPath(one), PurePosixPath(other)
    return first.is_relative_to(second) or second.is_relative_to(first)
