"""What an image that others stand on holds: its distribution, its C library, its Pythons. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from mlbox.errors import LockError
from mlbox.lock.debian.distributions import DEBIAN, KNOWN, UBUNTU, distribution_of, series_of
from mlbox.lock.debian.version import upstream_version
from mlbox.lock.model import FOLDER, Arch

STATUS = "var/lib/dpkg/status"
"""Where dpkg says what is installed."""

_MACHINES: Mapping[Arch, str] = {"amd64": "x86_64", "arm64": "aarch64"}
_LIBRARIES = ("lib", "lib64", *(f"lib/{machine}-linux-gnu" for machine in _MACHINES.values()))
_FOLDERS = ("/usr/local/bin", "/usr/bin", "/opt/conda/bin")
_PYTHON = re.compile(r"python(3\.[0-9]{1,2})")
_VERSION = r"3\.[0-9]{1,2}\.[0-9]{1,2}(?:(?:a|b|rc)[0-9]{1,2})?"
_PATCHLEVEL = re.compile(rb'^#define\s+PY_VERSION\s+"(' + _VERSION.encode() + rb')\+?"', re.MULTILINE)
_CONDA = re.compile(rf"python-({_VERSION})-[^/]*\.json")
_GLIBC = re.compile(rb"GNU C Library [^\n\0]{0,80}release version ([0-9]+\.[0-9]+)")
_GLIBC_FILE = re.compile(r"libc-([0-9]+\.[0-9]+)\.so")
_MUSL = re.compile(r"ld-musl-.*\.so\.1")
_FIELD = re.compile(r"^([A-Z_]+)=(.*)$", re.MULTILINE)
_BINARY = 128 << 20
_WITH_PYTHON = 'a base with Python is, for one, "docker.io/library/python:3.12-slim"'


class Root(Protocol):
    """The files of an image as a container sees them; paths have no leading slash, symlinks stay inside."""

    def resolve(self, path: str) -> str | None:
        """Return where `path` leads; None when to nothing."""

    def read(self, path: str, limit: int = ...) -> bytes | None:
        """Return the content of the file that `path` leads to, None when there is none."""

    def children(self, path: str) -> Sequence[str]:
        """Return the sorted names in the directory `path`."""


class System(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of an image."""

    name: str
    """For people: 'Debian GNU/Linux 12 (bookworm)'."""
    suite: str = ""
    """The release of Debian or Ubuntu whose packages fit; empty when none's do."""


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """A Python of an image."""

    python: str
    """'3.12'."""
    home: str
    """The folder it is started from: '/usr/local/bin'."""

    @property
    def path(self) -> str:
        """Where the program lies in the image."""
        return f"{self.home}/python{self.python}"


def system_of(root: Root) -> System:
    """Return the distribution that os-release(5) names."""
    text = (root.read("etc/os-release") or root.read("usr/lib/os-release") or b"").decode("utf-8", "replace")
    fields = {key: value.strip().strip("\"'") for key, value in _FIELD.findall(text)}
    codename = fields.get("VERSION_CODENAME", "")
    releases = next((one.releases for one in (DEBIAN, UBUNTU) if one.id == fields.get("ID")), {})
    known = codename in releases and root.read(STATUS) is not None
    name = fields.get("PRETTY_NAME") or fields.get("ID") or "an unknown distribution"
    return System(name="".join(filter(str.isprintable, name))[:100], suite=codename if known else "")


def glibc_of(root: Root, arch: Arch, installed: Mapping[str, str], *, name: str) -> str:
    """Return the version of the C library ('2.36') that bounds which wheels run.

    `installed` are the versions dpkg knows, `name` is the image's for messages. Raises LockError for an image with
    another C library than glibc, or whose version nothing tells.
    """
    folders = [f"{lib}/{_MACHINES[arch]}-linux-gnu" for lib in ("lib", "usr/lib")]
    for folder in (*folders, "lib64", "usr/lib64", "lib", "usr/lib"):
        path = root.resolve(f"{folder}/libc.so.6")
        if path is None:
            continue
        said = _GLIBC.search(root.read(path, _BINARY) or b"")
        if said:
            return said[1].decode()
        if named := _GLIBC_FILE.fullmatch(path.rpartition("/")[2]):
            return named[1]
    if version := installed.get("libc6"):
        return ".".join(upstream_version(version).split(".")[:2])
    if any(_MUSL.fullmatch(file) for file in _listed(root, "lib")):
        raise LockError(
            f"base {name}: its C library is musl (Alpine), and the wheels that are locked are for glibc",
            hint="take the same image on Debian: python:3.12-slim instead of python:3.12-alpine",
        )
    raise LockError(f"base {name}: no C library (libc.so.6) is in it", hint=_WITH_PYTHON)


def interpreters(root: Root, env: Mapping[str, str]) -> list[Interpreter]:
    """Return every Python of an image, those found first in its PATH first.

    Of one folder, the Python that 'python3' means comes first, then the newest.
    """
    path = [folder.rstrip("/") for folder in env.get("PATH", "").split(":")]
    opt = [f"/opt/{name}/bin" for name in _listed(root, "opt")]
    folders: dict[str, str] = {}
    for folder in filter(FOLDER.fullmatch, (*path, *_FOLDERS, *opt)):
        # /bin may be a link to /usr/bin: one folder, by the first of its names.
        folders.setdefault(root.resolve(folder) or "", folder)
    found = [each for place, folder in folders.items() if place for each in _in_folder(root, folder, place)]
    unique: dict[tuple[str, str | None], Interpreter] = {}
    for each in found:
        unique.setdefault((each.python, root.resolve(each.path)), each)
    return list(unique.values())


def _in_folder(root: Root, folder: str, place: str) -> list[Interpreter]:
    # The Python of a virtual environment is only a link to the one that counts.
    if root.resolve(f"{place.rpartition('/')[0]}/pyvenv.cfg"):
        return []
    named = [match[1] for name in root.children(place) if (match := _PYTHON.fullmatch(name))]
    programs = {version: root.resolve(f"{place}/python{version}") or "" for version in named}
    # A script of that name (pyenv has such) only looks for one.
    real = {path for path in set(programs.values()) if (root.read(path, _BINARY) or b"").startswith(b"\x7fELF")}
    versions = [version for version in named if programs[version] in real]
    default = root.resolve(f"{folder}/python3") or ""
    versions.sort(key=lambda version: (default.endswith(f"/python{version}"), int(version[2:])), reverse=True)
    return [Interpreter(python=version, home=folder) for version in versions]


def full_version(root: Root, one: Interpreter, env: Mapping[str, str], installed: Mapping[str, str]) -> str:
    """Return the exact version ('3.12.4') of the interpreter; empty when nothing in the image says it."""
    place = root.resolve(one.path) or one.path.lstrip("/")
    prefix = place.rpartition("/")[0].rpartition("/")[0]
    return next((version for version in _versions(root, one, prefix, env, installed) if _is_of(version, one)), "")


def _versions(
    root: Root, one: Interpreter, prefix: str, env: Mapping[str, str], installed: Mapping[str, str]
) -> Iterator[str]:
    header = _PATCHLEVEL.search(root.read(f"{prefix}/include/python{one.python}/patchlevel.h") or b"")
    yield header[1].decode() if header else ""
    if prefix == "usr":
        yield upstream_version(installed.get(f"python{one.python}-minimal", ""))
    yield from (match[1] for file in _listed(root, f"{prefix}/conda-meta") if (match := _CONDA.fullmatch(file)))
    shared = [f"{prefix}/{folder}/libpython{one.python}.so.1.0" for folder in _LIBRARIES]
    for path in (one.path, *shared):
        yield _version_inside(root.read(path, _BINARY) or b"", one)
    yield env.get("PYTHON_VERSION", "")


def _version_inside(program: bytes, one: Interpreter) -> str:
    """Return the version that a program or library of Python holds as a C string, when it holds only one."""
    ours = re.compile(
        rb"(?<![0-9.])" + re.escape(one.python).encode() + rb"\.[0-9]{1,2}(?:(?:a|b|rc)[0-9]{1,2})?(?=\+?\0)"
    )
    found = set(ours.findall(program))
    return found.pop().decode() if len(found) == 1 else ""


def _is_of(version: str, one: Interpreter) -> bool:
    return bool(re.fullmatch(_VERSION, version)) and version.startswith(f"{one.python}.")


def _listed(root: Root, path: str) -> Sequence[str]:
    place = root.resolve(path)
    return root.children(place) if place else ()


def choose_interpreter(found: Sequence[Interpreter], python: str, *, name: str, system: System) -> Interpreter | None:
    """Return the interpreter to use: of version `python` ('3.12'; empty: the image's own choice).

    None when the image has no Python and the packages of its release bring the wanted one. Raises LockError when
    what is wanted is not to be had.
    """
    fitting = [one for one in found if python in ("", one.python)]
    if fitting:
        return fitting[0]
    series = series_of(system.suite)
    offered = series.python if series else ""
    if not found and offered and python in ("", offered):
        return None
    has = ", ".join(f"{one.python} ({one.path})" for one in found)
    if found:
        raise LockError(
            f"base {name} has Python {has}, and the project asks for {python}",
            hint=f'take a base with Python {python}, or write python = "{found[0].python}"',
        )
    if offered:
        raise LockError(
            f"base {name} has no Python; {distribution_of(system.suite).name} {system.suite}, which it is made of, "
            f"brings {offered}, and the project asks for {python}",
            hint=f'write python = "{offered}", or take a base with Python {python}',
        )
    raise LockError(
        f"base {name} ({system.name}) has no Python, and mlbox can add one only to {KNOWN}",
        hint="CUDA libraries come with the wheels that need them: "
        'base = "debian" or "docker.io/library/python:3.12-slim" will do for most projects',
    )
