"""Files of one line per thing: apt.txt, runtime.txt, .python-version and .tool-versions."""

import re
from collections.abc import Callable
from pathlib import Path

from mlbox.errors import ProjectError
from mlbox.project.model import Source
from mlbox.project.problems import Problems
from mlbox.project.reading import read_text
from mlbox.project.settings import DEB
from mlbox.project.spec import Line, Spec

APT = "apt.txt"

MAX_PACKAGES = 1000

VERSION = re.compile(r"(?:c?python[-@]?)?(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)", re.IGNORECASE | re.ASCII)
_WORD = re.compile(rf"(?P<name>{DEB.pattern})(?::[a-z0-9]+)?(?:=[\w.+~:-]+)?", re.ASCII)
_OTHER_RUNTIME = re.compile(r"(r|julia|pypy|nodejs|ruby)-?[\w.-]*", re.IGNORECASE)


def read_apt(root: Path, file: str, problems: Problems) -> Spec:
    """Read the Debian packages that an apt.txt names, as repo2docker does: several on a line, comments after '#'."""
    packages: list[Line] = []
    with problems.at(file):
        for number, line in enumerate(read_text(root / file, root=root).splitlines(), 1):
            for word in line.partition("#")[0].split():
                if (found := _WORD.fullmatch(word)) is None:
                    problems.add(
                        f"{file}:{number}", f"{word[:100]!r} is no Debian package name", "like libgl1 or ffmpeg"
                    )
                elif len(packages) >= MAX_PACKAGES:
                    raise ProjectError(f"more than {MAX_PACKAGES} packages")
                else:
                    packages.append(Line(found["name"], f"{file}:{number}"))
    return Spec(system_packages=tuple(packages))


def _python_version(text: str) -> str:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return next((match[1] for line in lines if (match := VERSION.fullmatch(line))), "")


def _tool_versions(text: str) -> str:
    """Return asdf's or mise's Python: the first version on the line that is one of CPython."""
    for line in text.splitlines():
        tool, *versions = line.split("#")[0].split()[:20] or [""]
        if tool == "python":
            return next((match[1] for version in versions if (match := VERSION.fullmatch(version))), "")
    return ""


def _runtime(text: str) -> str:
    words = text.split()
    if len(words) == 1 and (match := VERSION.fullmatch(words[0])):
        return match[1]
    if len(words) == 1 and (other := _OTHER_RUNTIME.fullmatch(words[0])):
        raise ProjectError(
            f"asks for {other[0][:50]!r}, and mlbox makes environments of CPython only",
            hint="take the file away, or say python-3.11 in it",
        )
    return ""


_PYTHONS: dict[str, Callable[[str], str]] = {
    ".python-version": _python_version,
    ".tool-versions": _tool_versions,
    "runtime.txt": _runtime,
}
"""Files that may name the Python, the first that does wins."""


def read_python(root: Path, problems: Problems) -> tuple[str, str, list[Source]]:
    """Return the Python that a file names, that file, and what was found."""
    version, named_by = "", ""
    sources = []
    for file, read in _PYTHONS.items():
        if not (root / file).exists():
            continue
        found = ""
        with problems.at(file):
            found = read(read_text(root / file, root=root))
        if named_by:
            sources.append(Source(path=file, used=False, reason=f"{named_by} comes first"))
            continue
        reason = f"Python {found}" if found else "names no version like 3.11"
        sources.append(Source(path=file, used=bool(found), reason=reason))
        version, named_by = (found, file) if found else ("", "")
    return version, named_by, sources
