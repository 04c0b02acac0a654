"""setup.cfg and setup.py: what setuptools knows about a project, as far as it is written down.

setup.py is never run: its arguments are read when they are literals, or names that are given a literal once. What is
computed is said and not guessed.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any

from mlbox.errors import ProjectError
from mlbox.project.problems import Problems
from mlbox.project.reading import read_text
from mlbox.project.spec import Spec

CFG, PY = "setup.cfg", "setup.py"

MAX_SIZE = 2**20
"""Characters of a setup.py: the syntax tree of a file takes a hundred times its size."""

MAX_STEPS = 20_000
"""Parts of expressions that are looked at."""

_DEPTH = 50
_MUTATORS = frozenset({"append", "extend", "insert", "remove", "pop", "clear", "update", "setdefault", "add", "sort"})
_REQUIREMENTS = re.compile(r"""["']((?:[\w.-]+/)*[\w.-]*(?:req|dep)[\w.-]*\.(?:txt|in))["']""")
_COMPILED = ("ext_modules", "libraries", "rust_extensions", "cffi_modules", "cmake_source_dir")
_ARGUMENTS: dict[str, tuple[str, Any]] = {
    "install_requires": ("project.dependencies", list),
    "extras_require": ("project.optional-dependencies", dict),
    "python_requires": ("project.requires-python", str),
    "name": ("project.name", str),
    "version": ("project.version", str),
    "entry_points": ("project.entry-points", (dict, str)),
    "package_dir": ("", dict),
}


def read_setup(root: Path, file: str, problems: Problems) -> Spec:
    """Read setup.cfg and setup.py of one folder together, as setuptools does: arguments of setup() come first."""
    folder = Path(file).parent
    arguments: dict[str, Any] = {}
    computed: list[str] = []
    notes: list[str] = []
    labels: dict[str, str] = {}
    for name, read in ((CFG, _of_cfg), (PY, _of_py)):
        path = (folder / name).as_posix()
        if (root / path).is_file():
            with problems.at(path):
                found, unknown = read(read_text(root / path, root=root))
                arguments.update(found)
                computed = [key for key in computed if key not in found] + [key for key in unknown if key in _ARGUMENTS]
                labels.update({label: f"{path} {key}" for key, (label, _) in _ARGUMENTS.items() if key in found})
                notes += [
                    f"{path}: {key} is compiled, which mlbox does not do here" for key in _COMPILED if key in unknown
                ]
    table = _table(arguments, file, problems)
    missing = [key for key in ("install_requires", "extras_require") if key in computed]
    return Spec(
        table=table,
        labels={"project": file, **labels},
        notes=tuple(notes),
        computed=f"{' and '.join(missing)} of setup() {'is' if len(missing) == 1 else 'are'} computed"
        if missing
        else "",
        computed_from=tuple(_files_named(root, folder / PY)) if missing else (),
    )


def _files_named(root: Path, file: Path) -> Iterator[str]:
    """Yield the files of requirements that setup.py names and that are there."""
    for name in dict.fromkeys(_REQUIREMENTS.findall(read_text(root / file, root=root))):
        path = file.parent / name
        if ".." not in path.parts and (root / path).is_file():
            yield path.as_posix()


def _table(arguments: Mapping[str, Any], file: str, problems: Problems) -> dict[str, Any]:
    """Return the arguments as pyproject.toml would say them."""
    project: dict[str, Any] = {}
    dynamic: dict[str, Any] = {}
    for key, (dotted, kind) in _ARGUMENTS.items():
        value = arguments.get(key)
        if value is None:
            continue
        with problems.at(f"{file} {key}"):
            if key == "install_requires" and isinstance(value, str):
                value = _lines(value)
            if not isinstance(value, kind):
                raise ProjectError("is nothing that setuptools would take")
            if dotted:
                project[dotted.partition(".")[2]] = value
    for key, dotted in (("version", "version"), ("install_requires_file", "dependencies")):
        if file_or_attribute := arguments.get(f"{key}_dynamic"):
            dynamic[dotted] = file_or_attribute
            project.pop(dotted, None)
    if "version" not in project:
        project["dynamic"] = [*project.get("dynamic", []), "version"]
    if "dependencies" in dynamic:
        project["dynamic"] = [*project.get("dynamic", []), "dependencies"]
    with problems.at(f"{file} extras_require"):
        project["optional-dependencies"] = _extras(project.get("optional-dependencies", {}), project)
    with problems.at(f"{file} entry_points"):
        project |= _entry_points(project.pop("entry-points", {}))
    tool: dict[str, Any] = {"dynamic": dynamic}
    if isinstance(folders := arguments.get("package_dir"), dict):
        tool["package-dir"] = folders
    return {
        "project": project,
        "tool": {"setuptools": tool},
        "build-system": {"build-backend": "setuptools.build_meta"},
    }


def _extras(extras: Mapping[str, Any], project: dict[str, Any]) -> dict[str, list[str]]:
    """Return the extras; 'name:marker' is setuptools' older way to give a condition, with no name: to everybody."""
    found: dict[str, list[str]] = {}
    for key, value in extras.items():
        lines = _lines(value) if isinstance(value, str) else value
        if not _is_strings(lines):
            raise ProjectError("must be a dict of lists of strings")
        extra, colon, marker = key.partition(":")
        texts = [f"{line} ; {marker}" if colon else line for line in lines]
        if extra:
            found.setdefault(extra, []).extend(texts)
        else:
            project["dependencies"] = [*project.get("dependencies", []), *texts]
    return found


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _entry_points(value: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return scripts, gui-scripts and entry-points of [project]."""
    groups: dict[str, Any] = dict(_ini(value)) if isinstance(value, str) else dict(value)
    found: dict[str, dict[str, str]] = {}
    for group, lines in groups.items():
        texts = _lines(lines) if isinstance(lines, str) else lines
        if not _is_strings(texts):
            raise ProjectError("must be a dict of lists of strings")
        pairs = [text.partition("=") for text in texts]
        found[str(group)] = {name.strip(): target.strip() for name, _, target in pairs}
    scripts = {"scripts": found.pop("console_scripts", {}), "gui-scripts": found.pop("gui_scripts", {})}
    return {**{key: value for key, value in scripts.items() if value}, **({"entry-points": found} if found else {})}


def _ini(text: str) -> Iterator[tuple[str, list[str]]]:
    parser = _parsed(text)
    for section in parser.sections():
        yield section, [f"{key}={value}" for key, value in parser.items(section)]


def _parsed(text: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=False, delimiters=("=",) if "\n[" not in text else ("=", ":"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except Error as problem:
        raise ProjectError(f"is no INI file: {str(problem).splitlines()[0][:200]}") from problem
    return parser


def _lines(text: str) -> list[str]:
    """Split a value of setup.cfg as setuptools does: by lines, or by ';' when it is one line of no requirement."""
    found = [line.strip() for line in text.splitlines()]
    return [line for line in found if line and not line.startswith("#")]


def _of_cfg(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return what setup.cfg says, by the names of setup()'s arguments, and the names of what it leaves to a build."""
    parser = _parsed(text)

    def section(name: str) -> dict[str, str]:
        return {key.replace("-", "_"): value for key, value in parser.items(name)} if parser.has_section(name) else {}

    metadata, options = section("metadata"), section("options")
    found: dict[str, Any] = {}
    if "name" in metadata:
        found["name"] = metadata["name"].strip()
    if version := metadata.get("version", "").strip():
        found |= _directive("version", version) or {"version": version}
    if "install_requires" in options:
        value = options["install_requires"]
        found |= _directive("install_requires_file", value.strip()) or {"install_requires": _lines(value)}
    if "python_requires" in options:
        found["python_requires"] = options["python_requires"].strip()
    if parser.has_section("options.extras_require"):
        found["extras_require"] = {key: _lines(value) for key, value in parser.items("options.extras_require")}
    if parser.has_section("options.entry_points"):
        found["entry_points"] = {key: _lines(value) for key, value in parser.items("options.entry_points")}
    if "package_dir" in options:
        pairs = [line.partition("=") for line in _lines(options["package_dir"])]
        found["package_dir"] = {name.strip(): folder.strip() for name, _, folder in pairs}
    elif where := section("options.packages.find").get("where", "").strip():
        found["package_dir"] = {"": where}
    return found, []


def _directive(key: str, value: str) -> dict[str, Any]:
    """Return what 'file: NAME' and 'attr: module.NAME' say in pyproject.toml's words."""
    kind, colon, rest = value.partition(":")
    if not colon or kind.strip() not in ("file", "attr"):
        return {}
    names = [name.strip() for name in rest.split(",") if name.strip()]
    return {f"{key}_dynamic": {kind.strip(): names if kind.strip() == "file" else rest.strip()}}


def _of_py(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the literal arguments of setup(), and the names of those that are computed."""
    if len(text) > MAX_SIZE:
        raise ProjectError(f"is larger than {MAX_SIZE // 1024} KiB", hint="this cannot be a setup.py")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        line = getattr(problem, "lineno", None)
        raise ProjectError(
            f"is no Python: {f'line {line}: ' if line else ''}{getattr(problem, 'msg', problem)}"
        ) from problem
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_setup(node.func)]
    if len(calls) > 1:
        raise ProjectError("calls setup() more than once", hint="list what it needs in requirements.txt")
    return _arguments(calls[0], _constants(tree)) if calls else ({}, [])


def _is_setup(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id == "setup") or (
        isinstance(function, ast.Attribute) and function.attr == "setup"
    )


def _arguments(call: ast.Call, constants: Mapping[str, ast.expr]) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    computed: list[str] = []
    literals = _Literals(constants)
    for keyword in call.keywords:
        try:
            value = literals.value(keyword.value)
        except _Computed:
            computed += [keyword.arg] if keyword.arg else list(_ARGUMENTS)
            continue
        if keyword.arg:
            found[keyword.arg] = value
        elif isinstance(value, dict):  # setup(**ARGUMENTS)
            found |= {str(key): one for key, one in value.items()}
    for key in _COMPILED:
        if found.get(key):
            computed.append(key)
    return {key: value for key, value in found.items() if key in _ARGUMENTS}, computed


class _Computed(Exception):
    """A value that only running the file would give."""


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Return names that are given a value once, at the top of the file, and are not changed anywhere."""
    given: dict[str, ast.expr] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                given[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                given[name] = value
    stores: dict[str, int] = {}
    for name in _changed(tree):
        stores[name] = stores.get(name, 0) + 1
    return {name: value for name, value in given.items() if stores.get(name) == 1}


def _changed(tree: ast.Module) -> Iterator[str]:
    """Yield a name for each place where it gets a value or may be changed."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                yield name
            case ast.AugAssign(target=ast.Name(id=name)):  # a second time, as the target is stored too
                yield name
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                yield name
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if attribute in _MUTATORS:
                yield name


class _Literals:
    """Values of expressions that need no running; bounded, as names may be used again and again."""

    def __init__(self, constants: Mapping[str, ast.expr]) -> None:
        self._constants = constants
        self._left = MAX_STEPS

    def value(self, node: ast.expr, depth: int = 0) -> Any:  # noqa: ANN401 (a literal)
        """Return what `node` is; _Computed when only running it would say."""
        self._left -= 1
        if depth > _DEPTH or self._left < 0:
            raise _Computed

        def inner(one: ast.expr) -> Any:  # noqa: ANN401 (a literal)
            return self.value(one, depth + 1)

        match node:
            case ast.Constant(value=value):
                return value
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                return [inner(item) for item in items]
            case ast.Dict(keys=keys, values=values) if all(isinstance(key, ast.Constant) for key in keys):
                return {inner(key): inner(value) for key, value in zip(keys, values, strict=True) if key}
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return _sum(inner(left), inner(right))
            case ast.Name(id=name) if name in self._constants:
                return inner(self._constants[name])
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)) if name in self._constants:
                found = inner(self._constants[name])
                if isinstance(found, dict) and key in found:
                    return found[key]
        raise _Computed


def _sum(left: object, right: object) -> object:
    if isinstance(left, list) and isinstance(right, list) and len(left) + len(right) <= MAX_STEPS:
        return left + right
    if isinstance(left, str) and isinstance(right, str) and len(left) + len(right) <= MAX_SIZE:
        return left + right
    raise _Computed
