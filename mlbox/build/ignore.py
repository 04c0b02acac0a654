"""Which files of a repository stay out of the image: ignore files by their own rules, and what never belongs there.

.mlboxignore (gitignore syntax) replaces the others; else .dockerignore counts, by Docker's rules; else every
.gitignore of the repository, nested ones too. Rules outside the repository (git's global excludes, a parent
folder's) never count: the same files must make the same image on another machine.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlbox.errors import ProjectError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_MOST = 1 << 20

# Version control, then what tools leave behind: none of it is needed to run, all of it differs between machines.
_VERSION_CONTROL = (".git", ".hg", ".svn", ".bzr", ".jj", "CVS", "_darcs")
_CACHES = (".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints", ".cache", "__pycache__")
_ENVIRONMENTS = (".tox", ".nox", ".eggs", ".pixi", "__pypackages__")
_NEVER = frozenset((*_VERSION_CONTROL, *_CACHES, *_ENVIRONMENTS, ".DS_Store", "mlbox.lock"))
_NEVER_SUFFIXES = (".pyc", ".pyo", ".egg-info")
_KEYS = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")
_SECRETS = frozenset((*_KEYS, ".env", ".netrc", ".pypirc", ".git-credentials", ".aws", ".ssh", ".kube", ".gnupg"))
_SECRET_SUFFIXES = (".pem", ".p12", ".pfx")
_HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist")


def never(name: str) -> bool:
    """Whether a file or folder of that name stays out whatever the ignore files say."""
    return name in _NEVER or name.endswith(_NEVER_SUFFIXES)


def secret(name: str) -> bool:
    """Whether a file or folder of that name usually holds credentials."""
    return name in _SECRETS or name.endswith(_SECRET_SUFFIXES) or (name.startswith(".env.") and name not in _HARMLESS)


class Ignore(Protocol):
    """The rules that hold in one folder."""

    key: str
    """Equal keys decide equally."""

    def verdict(self, path: str, folder: bool) -> bool | None:
        """Whether `path` stays out; None when no rule speaks of it."""

    def reaches_into(self, path: str) -> bool:
        """Whether something below `path`, a folder that stays out, may still be wanted."""

    def within(self, folder: str, root: Path) -> "Ignore":
        """Return the rules that hold in `folder`, below the folder these rules are for."""


class GitIgnore:
    """Rules in gitignore syntax; with `nested`, each folder's .gitignore adds to them."""

    def __init__(self, files: tuple[tuple[str, bytes], ...] = (), *, nested: bool = False) -> None:
        """Take the content of ignore files by the folder they stand in, outermost first."""
        self._files = files
        self.nested = nested
        self._specs: list[tuple[int, GitIgnoreSpec]] | None = None
        self.key = hashlib.sha256(repr((nested, files)).encode()).hexdigest()

    def verdict(self, path: str, folder: bool) -> bool | None:
        """Return what the last pattern that matches says, those of deeper folders first."""
        name = path + "/" if folder else path
        for skip, spec in self._compiled():
            result = spec.check_file(name[skip:]).include
            if result is not None:
                return result
        return None

    def reaches_into(self, path: str) -> bool:
        """Never: git does not look into an ignored folder."""
        return False

    def within(self, folder: str, root: Path) -> "GitIgnore":
        """Return these rules, with those of the folder's own .gitignore."""
        data = _read(root / folder / ".gitignore") if self.nested else None
        return GitIgnore((*self._files, (folder, data)), nested=True) if data else self

    def _compiled(self) -> "list[tuple[int, GitIgnoreSpec]]":
        if self._specs is None:
            from pathspec import GitIgnoreSpec  # 25 ms, and most scans find everything in their cache

            self._specs = [
                (len(folder) + 1 if folder else 0, GitIgnoreSpec.from_lines(_lines(data)))
                for folder, data in reversed(self._files)
            ]
        return self._specs


class DockerIgnore:
    """A .dockerignore: patterns from the root of the project, the last that matches a path or a parent decides."""

    def __init__(self, data: bytes) -> None:
        self.key = hashlib.sha256(b"docker" + data).hexdigest()
        self._patterns = [parsed for line in _lines(data) if (parsed := _docker_pattern(line))]

    def verdict(self, path: str, folder: bool) -> bool | None:
        """Return what the last matching pattern says."""
        for wanted, regex, _ in reversed(self._patterns):
            if regex.fullmatch(path):
                return not wanted
        return None

    def reaches_into(self, path: str) -> bool:
        """Whether an exception could match below `path`."""
        return any(
            wanted and (prefix.startswith(path + "/") or (path + "/").startswith(prefix))
            for wanted, _, prefix in self._patterns
        )

    def within(self, folder: str, root: Path) -> "DockerIgnore":
        """Return these rules: there is only one .dockerignore."""
        return self


def project_ignore(root: Path) -> Ignore:
    """Return the rules that hold at the top of the repository `root`."""
    if (data := _read(root / ".mlboxignore")) is not None:
        return GitIgnore((("", data),))
    if (data := _read(root / ".dockerignore")) is not None:
        return DockerIgnore(data)
    return GitIgnore(nested=True).within("", root)


def patterns(lines: Iterable[str]) -> GitIgnore:
    """Return rules from patterns in gitignore syntax."""
    data = "\n".join(lines).encode()
    return GitIgnore((("", data),) if data else ())


def _docker_pattern(line: str) -> tuple[bool, re.Pattern[str], str] | None:
    """Return (wanted, regex, the literal text it begins with)."""
    if line.startswith("#") or not line.strip():
        return None
    text = line.strip()
    wanted = text.startswith("!")
    text = re.sub(r"(\*\*/)+", "**/", text)  # the same, and no trap for a backtracking regex
    text = posixpath.normpath(text.removeprefix("!").strip() or ".").lstrip("/")
    if text in (".", ""):
        return None
    try:
        regex = re.compile(f"(?:{_docker_regex(text)})(?:/.*)?", re.DOTALL)
    except re.error as problem:
        raise ProjectError(f".dockerignore: bad pattern {line!r}: {problem}") from problem
    prefix = re.split(r"[*?\[\\]", text, maxsplit=1)[0]
    return wanted, regex, prefix


_DOCKER_TOKEN = re.compile(r"\*\*/?|\*|\?|\\.|\[\^?\]?[^\]]*\]|.", re.DOTALL)


def _docker_regex(text: str) -> str:
    # The grammar of Go's filepath.Match, and '**' for any number of folders (docs.docker.com, "dockerignore files").
    out = []
    for match in _DOCKER_TOKEN.finditer(text):
        part = match[0]
        if part == "**/":
            out.append("(?:.*/)?")
        elif part == "**":
            out.append(".*")
        elif part in ("*", "?"):
            out.append("[^/]*" if part == "*" else "[^/]")
        elif part.startswith("[") and len(part) > 1:
            negation = "^" if part.startswith("[^") else ""
            body = re.sub(r"([\[&~|])", r"\\\1", part[1 + len(negation) : -1])
            out.append(f"(?!/)[{negation}{body}]")
        else:
            out.append(re.escape(part[1:] if len(part) > 1 else part))
    return "".join(out)


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").split("\n")


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as problem:
        raise ProjectError(f"{path}: cannot be read: {problem.strerror}") from problem
    if len(data) > _MOST:
        raise ProjectError(f"{path}: an ignore file larger than {_MOST} bytes")
    return data
