"""One requirement as pip allows it (a name, a URL, a path) becomes one normalised line."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from mlbox.errors import ProjectError
from mlbox.project.marker import check_marker
from mlbox.project.model import Requirement, Value
from mlbox.project.reading import repository, submodule_hint

if TYPE_CHECKING:
    from packaging.requirements import Requirement as Pep508

MAX_LENGTH = 4096
"""Characters of one requirement without its hashes."""

_SPECIFIER = r"(?:==|!=|<=|>=|<|>)[ \t]*[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?"
_PLAIN = re.compile(rf"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)[ \t]*({_SPECIFIER}(?:[ \t]*,[ \t]*{_SPECIFIER})*)?")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*@")
_NAME_AND_EXTRAS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_EXTRAS = re.compile(r"(.*?)\s*\[([^\[\]]*)\]", re.DOTALL)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")


class Itself(Value, frozen=True, kw_only=True):
    """The project as its own requirement: '-e .[extra]'."""

    extras: tuple[str, ...] = ()


class Place(Value, frozen=True, kw_only=True):
    """Where a requirement stands, and what its relative paths are relative to."""

    root: Path
    folder: Path
    """Of the file it stands in."""
    origin: str
    is_pip: bool = True
    """Whether paths are meant as pip means them in its files: from where it is run. Else they are from `folder`."""

    @property
    def starts(self) -> tuple[Path, ...]:
        """The folders that a relative path may start from, the first that has it counts."""
        return (self.root, self.folder) if self.is_pip else (self.folder,)


def normalize(name: str) -> str:
    """Return a distribution's, extra's or group's name in the one form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def without_credentials(text: str) -> str:
    """Return `text` without user names and passwords in its URLs."""
    return _CREDENTIALS.sub("", text)


def channel_without_credentials(channel: str) -> str:
    """Return a conda channel without user, password and the token that conda writes as '/t/TOKEN/'."""
    return re.sub(r"(?<=[^:/])/t/[^/]+", "", without_credentials(channel))


def parse_requirement(text: str, place: Place, *, editable: bool = False) -> Requirement | Itself:
    """Return what `text` asks for, normalised; ProjectError (without the place) when pip would refuse it."""
    if len(text) > MAX_LENGTH:
        raise ProjectError(f"requirement of {len(text)} characters; {MAX_LENGTH} are allowed")
    if not editable and not _is_archive(place, text) and (plain := _plain(text)):
        return Requirement(text=plain, origin=place.origin)
    if _NAMED.match(text):
        return _from_pep508(text, place, editable)
    location, marker = _split_marker(text)
    if scheme := _SCHEME.match(location):
        return _from_url(location, marker, scheme[1].lower(), place, editable)
    if editable or location.startswith((".", "~")) or "/" in location or _is_archive(place, location):
        return _from_path(location, marker, place)
    return _from_pep508(text, place, editable)


def local_path(requirement: Requirement) -> str:
    """Return the file or folder (relative to the root) of a 'path' or 'folder' requirement."""
    location, _ = _split_marker(requirement.text)
    return found[1] if (found := _EXTRAS.fullmatch(location)) else location


def local_extras(requirement: Requirement) -> tuple[str, ...]:
    """Return the extras that a 'path' or 'folder' requirement asks for, normalised."""
    found = _EXTRAS.fullmatch(_split_marker(requirement.text)[0])
    return tuple(normalize(part) for part in found[2].split(",") if part) if found else ()


def named_in(requirement: Requirement) -> tuple[str, tuple[str, ...]]:
    """Return the normalised name and extras of a requirement that has just these and versions; ('', ()) of others."""
    if requirement.kind != "named" or not (found := _NAME_AND_EXTRAS.match(requirement.text)):
        return "", ()
    return normalize(found[1]), tuple(normalize(one.strip()) for one in (found[2] or "").split(",") if one.strip())


def marker_of(requirement: Requirement) -> str:
    """Return the condition of a requirement, empty when there is none."""
    text = requirement.text.partition(" --hash=")[0]
    return text.partition(";" if requirement.kind == "named" and " @ " not in text else " ;")[2].strip()


def under(requirement: Requirement, marker: str) -> Requirement:
    """Return the requirement with `marker` as its condition, in place of its own."""
    text, dash, options = requirement.text.partition(" --hash=")
    separator = "; " if requirement.kind == "named" and " @ " not in text else " ; "
    spec = text.partition(separator.rstrip())[0].rstrip()
    tail = f"{dash}{options}"
    return msgspec.structs.replace(requirement, text=f"{spec}{separator}{marker}{tail}" if marker else f"{spec}{tail}")


def _plain(text: str) -> str:
    # Most lines are 'name==1.2': packaging's 17 ms of import are saved when all are.
    found = _PLAIN.fullmatch(text)
    if not found:
        return ""
    specifiers = [re.sub(r"[ \t]", "", part) for part in (found[2] or "").split(",")]
    operators = {re.match(r"[=!<>]*", specifier)[0] for specifier in specifiers}  # type: ignore[index]
    return found[1] + ",".join(sorted(specifiers)) if len(operators) == len(specifiers) else ""


def pep508(text: str) -> "Pep508":
    """Parse a dependency specifier; ProjectError says what is wrong with it."""
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Pep508

    try:
        parsed = Pep508(text)
    except (InvalidRequirement, RecursionError, ValueError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise ProjectError(
            f"invalid requirement {without_credentials(text)!r}: {reason}", hint=_hint_for(text)
        ) from problem
    if parsed.marker is not None:
        check_marker(parsed.marker)
    return parsed


def _hint_for(text: str) -> str | None:
    if "${" in text:
        return "set the environment variable that it names"
    if re.search(r"[^=!<>~]=[^=]", text):
        return "an exact version is written with two equals signs: name==1.0"
    return None


def _from_pep508(text: str, place: Place, editable: bool) -> Requirement | Itself:
    parsed = pep508(text)
    marker = str(parsed.marker or "")
    if parsed.url is None:
        return Requirement(text=str(parsed), origin=place.origin)
    scheme = _SCHEME.match(parsed.url)
    if not scheme or scheme[1].lower() == "file":
        extras = f"[{','.join(sorted(parsed.extras))}]" if parsed.extras else ""
        return _from_path(parsed.url + extras, marker, place, name=normalize(parsed.name))
    kind = _url_kind(parsed.url, scheme[1].lower(), editable)
    return Requirement(text=str(parsed), origin=place.origin, kind=kind)


def _split_marker(text: str) -> tuple[str, str]:
    # A URL may hold ';', so pip wants a space on either side of the one before a marker.
    separator = r"\s;|;\s" if _SCHEME.match(text) else ";"
    location, *marker = re.split(separator, text, maxsplit=1)
    return location.strip(), marker[0].strip() if marker else ""


def _from_url(location: str, marker: str, scheme: str, place: Place, editable: bool) -> Requirement | Itself:
    if scheme == "file":
        return _from_path(location, marker, place)
    kind = _url_kind(location, scheme, editable)
    address, _, fragment = location.partition("#")
    parts = [part for part in fragment.split("&") if part]
    name = next((unquote(part[4:]) for part in parts if part.startswith("egg=")), "") or _name_in(address)
    rest = "&".join(part for part in parts if not part.startswith("egg="))
    url = f"{address}#{rest}" if rest else address
    tail = f" ; {marker}" if marker else ""
    normalised = str(pep508(f"{name or 'unnamed'} @ {url}{tail}"))
    return Requirement(text=normalised if name else normalised.split("@", 1)[1].strip(), origin=place.origin, kind=kind)


def _name_in(address: str) -> str:
    filename = unquote(address.rsplit("/", 1)[-1])
    return filename.split("-", 1)[0] if filename.endswith(".whl") else ""


def _url_kind(url: str, scheme: str, editable: bool) -> Literal["url", "vcs"]:
    """Return the kind of `url`; ProjectError when nothing can be fetched from such a one."""
    clean = without_credentials(url)
    try:
        host = urlsplit(url).hostname
    except ValueError as problem:
        raise ProjectError(f"invalid URL {clean!r}: {problem}") from problem
    if not host and scheme != "git+file":
        raise ProjectError(f"invalid URL {clean!r}: no host")
    if scheme in ("git+https", "git+http", "git+ssh"):
        return "vcs"
    if scheme not in ("http", "https"):
        raise ProjectError(
            f"{clean!r}: nothing can be fetched by {scheme!r}", hint="git+https, git+ssh, https and http can be fetched"
        )
    if editable:
        raise ProjectError(f"{clean!r}: only a folder or a git checkout can be editable", hint="leave out -e")
    return "url"


def _is_archive(place: Place, location: str) -> bool:
    return location.endswith(_ARCHIVES) and any((start / location).exists() for start in place.starts)


def _from_path(location: str, marker: str, place: Place, *, name: str = "") -> Requirement | Itself:
    path, extras = location, ""
    if found := _EXTRAS.fullmatch(location):
        path, extras = found[1], ",".join(sorted(part.strip() for part in found[2].split(",") if part.strip()))
    real = _inside(path, place)
    if real == place.root.resolve():
        if marker:
            raise ProjectError("the project itself cannot depend on a marker", hint="leave out the part after ';'")
        return Itself(extras=tuple(sorted(map(normalize, filter(None, extras.split(","))))))
    if not real.is_dir() and not real.name.endswith(_ARCHIVES):
        raise ProjectError(f"{path!r} is neither a folder nor an archive", hint="a requirements file is named by -r")
    if real.is_dir() and not any((real / name).is_file() for name in ("pyproject.toml", "setup.py")):
        empty = submodule_hint(place.root, real) if not any(real.iterdir()) else None
        raise ProjectError(f"{path!r} has neither pyproject.toml nor setup.py, so it cannot be installed", hint=empty)
    text = f"./{real.relative_to(place.root.resolve()).as_posix()}" + (f"[{extras}]" if extras else "")
    if extras or marker:
        checked = pep508(f"unnamed[{extras}] ; {marker}" if marker else f"unnamed[{extras}]")
        text += f" ; {checked.marker}" if marker else ""
    if not real.is_dir():
        return Requirement(text=text, origin=place.origin, kind="path")
    return Requirement(text=text, origin=place.origin, kind="folder", name=name)


def _inside(path: str, place: Place) -> Path:
    """Return the real path of a local requirement, which must exist and lie inside the project."""
    if path.startswith("git+"):
        raise ProjectError(
            f"{without_credentials(path)!r} is no URL",
            hint="write git+ssh://git@HOST/PATH, with a slash after the host",
        )
    plain = _file_url_path(path) if path.lower().startswith("file:") else path
    # As pip reads it: relative to where pip is run, which is the project; as uv does: relative to the file.
    candidates = [start / plain for start in place.starts]
    try:
        found = next((candidate for candidate in candidates if candidate.exists()), None)
        real = (found or candidates[0]).resolve()
    except (OSError, ValueError, RuntimeError) as problem:  # name too long, NUL, symlink loop
        raise ProjectError(f"{path!r}: {problem}") from problem
    if not real.is_relative_to(place.root.resolve()):
        raise ProjectError(f"{path!r} leaves the project's folder", hint=_hint_to_run_above(real, place.root.resolve()))
    if found is None:
        raise ProjectError(f"{path!r} does not exist", hint=submodule_hint(place.root, real))
    return real


def _hint_to_run_above(path: Path, root: Path) -> str:
    """Say how a folder beside the project's can be one of its own: the image has what lies below one folder."""
    if not path.is_relative_to(top := repository(root)):
        return "copy or vendor it below the folder, or depend on it by git URL"
    above = next(folder for folder in root.parents if path.is_relative_to(folder))
    member = root.relative_to(above).as_posix()
    return f"run mlbox in {above}, with package = {member!r} in [tool.mlbox] there" if above.is_relative_to(top) else ""


def _file_url_path(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as problem:
        raise ProjectError(f"invalid URL {url!r}: {problem}") from problem
    if parts.netloc not in ("", "localhost"):
        raise ProjectError(f"{url!r} names another machine", hint="a local file's URL begins with file:///")
    return unquote(parts.path)
