"""Requirement files with all that pip allows in them: nested files, options, hashes, continuation lines, encodings."""

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from mlbox.errors import ProjectError
from mlbox.project.model import IndexOptions, Requirement
from mlbox.project.problems import Problems
from mlbox.project.reading import read_text, repository, shown
from mlbox.project.requirement import Itself, Place, local_path, normalize, parse_requirement
from mlbox.project.spec import Line

if TYPE_CHECKING:
    from optparse import OptionParser, Values

MAX_FILES = 100
"""Requirement files that may include one another."""

MAX_LINES = 50_000
"""Logical lines of one file."""

MAX_LINE = 2**16
"""Characters of a logical line; one with the hashes of 200 wheels has 17,000."""

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_OF_CONDA = re.compile(r"\A(?:#.*\n){0,4}# \$ conda create --name ")
"""The head of a list that conda itself would read."""
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_OPTION = re.compile(r"(?:^|[ \t])(?=-)")
_HASHES = re.compile(r"(?:--hash[= ](?:sha256|sha384|sha512):[0-9a-fA-F]+\s*)+")
_HASH = re.compile(r"(sha256|sha384|sha512):([0-9a-fA-F]+)")


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, content) with continuation lines joined and comments gone, as pip does."""
    start, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        start = start if parts else number
        comment = line.lstrip().startswith("#")
        continues = line.endswith("\\") and not comment
        parts.append(line.strip("\\") if continues else f" {line}" if comment else line)
        if not continues:
            yield from _without_comment(start, parts)
            parts = []
    yield from _without_comment(start, parts)


def _without_comment(number: int, parts: list[str]) -> Iterator[tuple[int, str]]:
    if line := _COMMENT.sub("", "".join(parts)).strip():
        yield number, line


class RequirementFiles:
    """Reads requirement files of the project at `root` one after the other; what they say adds up."""

    def __init__(self, root: Path, problems: Problems, environ: Mapping[str, str] = os.environ) -> None:
        self.requirements: list[Requirement] = []
        self.constraints: list[Requirement] = []
        self.overrides: list[Requirement] = []
        self.index = IndexOptions()
        self.itself: Itself | None = None
        """Set when a line asks for the project itself ('-e .')."""
        self.itself_at = ""
        self.notes: list[str] = []
        self.read: list[tuple[str, str]] = []
        """(file, who named it), in the order they were read; who is empty for the first ones."""
        self._root = root
        self._repository = repository(root)
        self._problems = problems
        self._environ = environ
        self._done: set[tuple[Path, bool]] = set()
        self._open: list[Path] = []

    def add(self, path: Path, *, constraint: bool = False, named_by: str = "") -> None:
        """Read `path` and what it includes; what is wrong goes to the problems."""
        name = shown(self._root, path)
        with self._problems.at(named_by or name):
            real = self._admit(path, name)
            if (real, constraint) in self._done:
                return
            try:
                text = read_text(path)
            except ProjectError as problem:
                message = f"{name} {problem.message}" if named_by else problem.message
                raise ProjectError(message, hint=problem.hint) from problem
            self._done.add((real, constraint))
            self.read.append((name, named_by))
            self._open.append(real)
            try:
                self._lines(text, name, path.parent, constraint)
            finally:
                self._open.pop()

    def add_lines(self, lines: Iterable[Line], folder: Path) -> None:
        """Read lines that another kind of file holds in `folder`, as if they stood in a requirements file there."""
        for line in lines:
            place = Place(root=self._root, folder=folder, origin=line.origin)
            with self._problems.at(line.origin):
                if len(line.text) > MAX_LINE:
                    raise ProjectError(f"too long; {MAX_LINE} characters are read")
                if text := _COMMENT.sub("", line.text).strip():
                    self._line(self._expand(text, place), place, constraint=False)

    def add_limits(self, constraints: Iterable[Line], overrides: Iterable[Line], folder: Path) -> None:
        """Add constraints and overrides that another kind of file in `folder` has."""
        for line in constraints:
            with self._problems.at(line.origin):
                place = Place(root=self._root, folder=folder, origin=line.origin)
                self._requirement(line.text, place, constraint=True)
        for line in overrides:
            with self._problems.at(line.origin):
                parsed = parse_requirement(line.text, Place(root=self._root, folder=folder, origin=line.origin))
                if isinstance(parsed, Itself):
                    raise ProjectError("the project cannot override itself")
                self.overrides.append(parsed)

    def add_index(self, options: IndexOptions) -> None:
        """Add index options that another kind of file has."""
        self.index = merged(self.index, options)

    def _lines(self, text: str, name: str, folder: Path, constraint: bool) -> None:
        if _OF_CONDA.search(text):
            made = "in that environment, 'conda env export --from-history > environment.yml' writes what mlbox reads"
            hint = "call it conda-linux-64.lock" if "\n@EXPLICIT" in text else made
            raise ProjectError("is a list of conda's packages, not of an index's", hint=hint)
        for count, (number, line) in enumerate(logical_lines(text)):
            place = Place(root=self._root, folder=folder, origin=f"{name}:{number}")
            if count >= MAX_LINES or len(line) > MAX_LINE:
                raise ProjectError(f"{place.origin}: too long; {MAX_LINES} lines of {MAX_LINE} characters are read")
            with self._problems.at(place.origin):
                self._line(self._expand(line, place), place, constraint)

    def _admit(self, path: Path, name: str) -> Path:
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError) as problem:
            raise ProjectError(f"{name}: {problem}") from problem
        if real in self._open:
            raise ProjectError(f"includes {name}, which includes it", hint="take one of the -r lines out")
        if not real.is_relative_to(self._repository):
            raise ProjectError(f"{name} leaves the repository", hint="keep it where the project's other files are")
        if len(self._done) >= MAX_FILES:
            raise ProjectError(f"more than {MAX_FILES} requirement files")
        return real

    def _expand(self, line: str, place: Place) -> str:
        def value(found: re.Match[str]) -> str:
            if known := self._environ.get(found[1]):
                return known
            self.notes.append(f"{place.origin}: the environment variable {found[1]} is not set")
            return found[0]

        return _VARIABLE.sub(value, line) if "${" in line else line

    def _line(self, line: str, place: Place, constraint: bool) -> None:
        text, options = split_options(line)
        if text and not options:
            return self._requirement(text, place, constraint)
        if text and _HASHES.fullmatch(options):
            return self._requirement(text, place, constraint, hashes=_HASH.findall(options))
        values = _parse_options(options)
        if text:
            return self._requirement(
                text, place, constraint, hashes=_checked_hashes(values.hash), config_settings=values.config_settings
            )
        for editable in values.editable:
            self._requirement(editable, place, constraint, editable=True, config_settings=values.config_settings)
        for target, nested in [*((f, False) for f in values.requirement), *((f, True) for f in values.constraint)]:
            self.add(_nested(target, place), constraint=nested, named_by=place.origin)
        if values.hash:
            raise ProjectError("--hash without a requirement", hint="end the line before it with a backslash")
        self._index_options(values, place)
        return None

    def _requirement(
        self,
        text: str,
        place: Place,
        constraint: bool,
        *,
        editable: bool = False,
        hashes: Iterable[tuple[str, str]] = (),
        config_settings: Iterable[str] = (),
    ) -> None:
        parsed = parse_requirement(text, place, editable=editable)
        if constraint:
            self._constraint(parsed)
        if isinstance(parsed, Itself):
            known = self.itself.extras if self.itself else ()
            self.itself_at = self.itself_at or place.origin
            self.itself = Itself(extras=tuple(dict.fromkeys((*known, *parsed.extras))))
            return
        wanted = sorted({(algorithm, value.lower()) for algorithm, value in hashes})
        if wanted and parsed.kind in ("path", "editable"):
            _check_file(self._root / local_path(parsed), wanted)
            wanted = []
        suffix = "".join(f" --hash={algorithm}:{value}" for algorithm, value in wanted)
        settings = tuple(map(_key_and_value, config_settings))
        whole = msgspec.structs.replace(parsed, text=parsed.text + suffix, config_settings=settings)
        (self.constraints if constraint else self.requirements).append(whole)

    def _constraint(self, parsed: Requirement | Itself) -> None:
        if isinstance(parsed, Itself) or parsed.kind in ("editable", "path"):
            raise ProjectError("a constraint cannot be a folder or file", hint="name it in a file read with -r")
        if re.match(r"[^\s;@]+\[", parsed.text):
            raise ProjectError("a constraint cannot have extras", hint="leave out what is in brackets")

    def _index_options(self, values: "Values", place: Place) -> None:
        for ignored in ("use_feature", "global_option"):
            if getattr(values, ignored):
                self.notes.append(f"{place.origin}: --{ignored.replace('_', '-')} has no effect")
        self.add_index(
            IndexOptions(
                index_url=values.index_url,
                extra_index_urls=tuple(values.extra_index_url),
                find_links=tuple(_find_links(link, place) for link in values.find_links),
                no_index=values.no_index,
                pre=values.pre,
                prefer_binary=values.prefer_binary,
                require_hashes=values.require_hashes,
                trusted_hosts=tuple(values.trusted_host),
                only_binary=tuple(values.only_binary),
                no_binary=tuple(values.no_binary),
            )
        )


def merged(old: IndexOptions, new: IndexOptions) -> IndexOptions:
    """Return what holds when `new` is read after `old`, as pip adds options up."""
    no_index = old.no_index or new.no_index
    return IndexOptions(
        index_url="" if no_index else new.index_url or old.index_url,
        extra_index_urls=() if no_index else _unique(old.extra_index_urls, new.extra_index_urls),
        find_links=_unique(old.find_links, new.find_links),
        no_index=no_index,
        pre=old.pre or new.pre,
        prefer_binary=old.prefer_binary or new.prefer_binary,
        require_hashes=old.require_hashes or new.require_hashes,
        trusted_hosts=_unique(old.trusted_hosts, new.trusted_hosts),
        only_binary=_formats(old.only_binary, new.only_binary),
        no_binary=_formats(old.no_binary, new.no_binary),
        pins=tuple(dict.fromkeys((*old.pins, *new.pins))),
    )


def split_options(line: str) -> tuple[str, str]:
    """Split a logical line before its first word that begins with a dash, as pip does."""
    if not (found := _OPTION.search(line)):
        return line, ""
    return line[: found.start()].strip(), line[found.end() :]


def _parse_options(options: str) -> "Values":
    try:
        words = shlex.split(options)
        values, rest = _option_parser().parse_args(words)
    except ValueError as problem:  # shlex: no closing quotation
        raise ProjectError(f"{options!r}: {problem}") from problem
    if rest:
        raise ProjectError(f"unexpected {rest[0]!r}", hint="one requirement or one option per line")
    return values


def _option_parser() -> "OptionParser":
    # The grammar is optparse's in pip, abbreviations and '-rfile' included.
    from optparse import OptionParser

    class Parser(OptionParser):
        def error(self, msg: str) -> NoReturn:
            raise ProjectError(msg, hint="mlbox reads the options that pip allows in requirement files")

    parser = Parser(add_help_option=False, usage="")
    for flag in ("--no-index", "--pre", "--prefer-binary", "--require-hashes"):
        parser.add_option(flag, action="store_true", default=False)
    parser.add_option("-i", "--index-url", "--pypi-url", dest="index_url", default="")
    repeated = ("-r --requirement", "-c --constraint", "-e --editable", "--extra-index-url", "-f --find-links")
    others = ("--no-binary", "--only-binary", "--trusted-host", "--use-feature", "--hash", "--global-option")
    for names in (*repeated, *others, "-C --config-settings --config-setting"):
        dest = next(name for name in names.split() if name.startswith("--"))[2:].replace("-", "_")
        parser.add_option(*names.split(), dest=dest, action="append", default=[])
    return parser


def _nested(target: str, place: Place) -> Path:
    if target.lower().startswith("file://"):
        from urllib.parse import unquote

        return Path(unquote(target[7:]))
    if "://" in target:
        raise ProjectError(
            "what it includes is on another machine, so it can change without notice",
            hint="copy it into the repository",
        )
    return place.folder / target


def _find_links(link: str, place: Place) -> str:
    """Return `link` with a local folder relative to the root, as pip would find it from there."""
    if "://" in link or link.startswith("/"):
        return link
    here = place.folder / link
    return shown(place.root, here) if here.exists() else link


def _checked_hashes(hashes: Iterable[str]) -> list[tuple[str, str]]:
    checked = []
    for text in hashes:
        if not (found := _HASH.fullmatch(text)):
            raise ProjectError(f"--hash={text}: not a hash", hint="write sha256:, sha384: or sha512: and hex digits")
        checked.append((found[1], found[2]))
    return checked


def _check_file(path: Path, hashes: Iterable[tuple[str, str]]) -> None:
    if not path.is_file():
        raise ProjectError("a folder has no hash", hint="leave out --hash")
    with path.open("rb") as file:
        found = {
            algorithm: hashlib.file_digest(file, algorithm).hexdigest() for algorithm, _ in hashes if not file.seek(0)
        }
    if not any(found[algorithm] == value for algorithm, value in hashes):
        raise ProjectError(f"{path.name} has another hash: {found}", hint="this is not the file that was meant")


def _key_and_value(setting: str) -> str:
    if setting.find("=") < 1:
        raise ProjectError(f"--config-settings {setting!r}: no value", hint="write it as KEY=VALUE")
    return setting


def _unique(old: Iterable[str], new: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*old, *new)))


def _formats(old: tuple[str, ...], new: Iterable[str]) -> tuple[str, ...]:
    names = old
    for name in (part.strip() for value in new for part in value.split(",")):
        if name == ":none:":
            names = ()
        elif name:
            names = _unique(names, [name if name == ":all:" else normalize(name)])
    return names
