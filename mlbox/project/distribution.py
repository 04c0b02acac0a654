"""The project, or a folder of it, as an installable distribution, read without running its build backend."""

import re
from pathlib import Path
from typing import Any

from msgspec import UNSET

from mlbox.errors import ProjectError
from mlbox.project.model import Package
from mlbox.project.pyproject import Pyproject, at
from mlbox.project.reading import read_text
from mlbox.project.requirement import without_credentials

UNKNOWN = "0"
"""The version of a project whose own one cannot be read without running its build."""

_COMPILING = ("maturin", "scikit_build_core", "mesonpy")
_IN_FOLDER = re.compile(r"^(\s*[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?)\s*@\s*(?:[./~]|file:)\S*")
_ASSIGNED = r"^[ \t]*{name}[ \t]*(?::[ \t]*[\w.\[\]]+)?[ \t]*=[ \t]*['\"]v?([^'\"\n]+)['\"]"


def read_package(root: Path, pyproject: Pyproject, *, asked_for: bool) -> tuple[Package | None, list[str]]:
    """Return the distribution and notes about what could not be read; None when the project is none.

    It is one when pyproject.toml has a [build-system] and a name, or when it was `asked_for` by '-e .'.
    """
    if not pyproject.name or not (pyproject.build_system or asked_for):
        return None, []
    folder = Path(pyproject.file).parent
    source = _source(root / folder, pyproject)
    version, note = _version(root / folder, pyproject, source)
    notes = [note] if note else []
    backend = str(pyproject.build_system.get("build-backend", ""))
    if backend.startswith(_COMPILING):
        notes.append(
            f"{pyproject.file}: {backend} compiles parts of the project, which mlbox does not:"
            " only its Python is installed"
        )
    package = Package(
        name=pyproject.name,
        version=version,
        requires_python=pyproject.requires_python,
        scripts=pyproject.scripts,
        gui_scripts=pyproject.gui_scripts,
        entry_points=pyproject.entry_points,
        requires=_requires(pyproject),
        extras=tuple(sorted(pyproject.optional)),
        source="" if (path := (folder / source).as_posix()) == "." else path,
        folder=UNSET if folder == Path() else folder.as_posix(),
    )
    return package, notes


def _requires(pyproject: Pyproject) -> tuple[str, ...]:
    """Return the Requires-Dist lines, without credentials and folders of this machine: they end up in an image."""
    lines = [_without_place(text) for text in pyproject.dependencies]
    for extra, texts in sorted(pyproject.optional.items()):
        lines += [_with_extra(_without_place(text), extra) for text in texts]
    # On one line each, whatever the file says: METADATA is made of lines.
    return tuple(" ".join(without_credentials(line).split()) for line in lines)


def _without_place(text: str) -> str:
    """Return a requirement without the folder it is in, which is of the repository and not of the metadata."""
    return _IN_FOLDER.sub(r"\1", text)


def _with_extra(text: str, extra: str) -> str:
    requirement, _, marker = text.partition(" ;" if "://" in text else ";")
    condition = f'extra == "{extra}"'
    return f"{requirement.strip()} ; ({marker.strip()}) and {condition}" if marker else f"{text} ; {condition}"


def _source(root: Path, pyproject: Pyproject) -> str:
    """Return the folder that holds the packages: what the backend's settings say, else src/ if they lie there."""
    for folder in _declared(pyproject.tool):
        if isinstance(folder, str) and _is_below(folder) and (root / folder).is_dir():
            return "" if Path(folder) == Path() else Path(folder).as_posix()
    src = root / "src"
    if not src.is_dir():
        return ""
    module = re.sub(r"[-.]", "_", pyproject.name).lower()
    if (src / module).is_dir() or (src / f"{module}.py").is_file() or any(src.glob("*/__init__.py")):
        return "src"
    return ""


def _is_below(folder: str) -> bool:
    return "\0" not in folder and not Path(folder).is_absolute() and ".." not in Path(folder).parts


def _declared(tool: dict[str, Any]) -> list[Any]:
    found = at(tool, "setuptools", "packages", "find", "where") or []
    candidates = list(found) if isinstance(found, list) else []
    candidates.append(at(tool, "setuptools", "package-dir", ""))
    candidates.append(at(tool, "pdm", "build", "package-dir"))
    candidates += [one.get("from") for one in at(tool, "poetry", "packages") or () if isinstance(one, dict)]
    candidates.append(at(tool, "uv", "build-backend", "module-root"))
    packages = at(tool, "hatch", "build", "targets", "wheel", "packages")
    if isinstance(packages, list) and packages and isinstance(packages[0], str) and "/" in packages[0]:
        candidates.append(packages[0].rsplit("/", 1)[0])
    return [candidate for candidate in candidates if candidate]


def _version(root: Path, pyproject: Pyproject, source: str) -> tuple[str, str]:
    """Return the version and, when it had to be made up, a note that says why."""
    static = pyproject.project.get("version")
    if isinstance(static, str):
        return _valid(static) or UNKNOWN, "" if _valid(
            static
        ) else f"{pyproject.file}: {static!r} is no version (PEP 440)"
    if read := _valid(_dynamic_version(root, pyproject, source)):
        return read, ""
    return (
        UNKNOWN,
        f"{pyproject.file}: the version is made by the build backend, so the installed metadata says {UNKNOWN}",
    )


def _valid(text: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(text))
    except InvalidVersion:
        return ""


def _dynamic_version(root: Path, pyproject: Pyproject, source: str) -> str:
    tool = pyproject.tool
    module = re.sub(r"[-.]", "_", pyproject.name)
    attribute = at(tool, "setuptools", "dynamic", "version", "attr")
    if isinstance(attribute, str) and "." in attribute:
        parts = attribute.split(".")
        base = Path(source, *parts[:-1])
        return _assigned(root, [base / "__init__.py", base.with_name(base.name + ".py")], parts[-1])
    files = at(tool, "setuptools", "dynamic", "version", "file")
    if isinstance(files, list):
        files = files[0] if files else ""
    if isinstance(files, str) and files:
        return _text(root, Path(files)).strip()
    if at(tool, "hatch", "version", "source") in (None, "regex") and at(tool, "hatch", "version", "pattern") is None:
        path = at(tool, "hatch", "version", "path")
        if isinstance(path, str):
            return _assigned(root, [Path(path)], "(?:__version__|VERSION)")
    path = at(tool, "pdm", "version", "path")
    if isinstance(path, str):
        return _assigned(root, [Path(path)], "__version__")
    if str(pyproject.build_system.get("build-backend", "")).startswith("flit"):
        return _assigned(root, [Path(source, module, "__init__.py"), Path(source, f"{module}.py")], "__version__")
    return ""


def _assigned(root: Path, files: list[Path], name: str) -> str:
    pattern = _ASSIGNED.format(name=name if name.startswith("(") else re.escape(name))
    for file in files:
        if found := re.search(pattern, _text(root, file), re.MULTILINE):
            return found[1]
    return ""


def _text(root: Path, file: Path) -> str:
    try:
        path = (root / file).resolve()
        return read_text(path) if path.is_relative_to(root.resolve()) else ""
    except (ProjectError, OSError, ValueError, RuntimeError):
        return ""  # not there, or not readable: as good as not stated
