"""What is found in an image that others stand on, and what is refused."""

import posixpath
from collections.abc import Sequence

import pytest

from mlbox.errors import LockError
from mlbox.lock.base import (
    STATUS,
    Interpreter,
    System,
    choose_interpreter,
    full_version,
    glibc_of,
    interpreters,
    system_of,
)

BOOKWORM = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n'
UBUNTU = b"PRETTY_NAME='Ubuntu 24.04.1 LTS'\nID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"
GLIBC = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u7) stable release version 2.36.\n\0"
LIBC = "lib/x86_64-linux-gnu/libc.so.6"
DEBIAN = System(name="Debian 12", suite="bookworm")
NOBLE = System(name="Ubuntu 24.04", suite="noble")
OTHER = System(name="Fedora 42")
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
LOCAL, SYSTEM = (Interpreter(python="3.12", home="/usr/local/bin"), Interpreter(python="3.11", home="/usr/bin"))


class Files:
    """A root of a few files; a string is a symlink's target."""

    def __init__(self, **files: bytes | str) -> None:
        self.files = dict(files)

    def resolve(self, path: str) -> str | None:
        path = posixpath.normpath(path.strip("/"))
        for _ in range(9):
            head = next((link for link in self._parents(path) if isinstance(self.files.get(link), str)), None)
            if head is None:
                known = path in self.files or any(name.startswith(f"{path}/") for name in self.files)
                return path if known else None
            target = posixpath.join("/", posixpath.dirname(head), str(self.files[head]))
            path = posixpath.normpath(target + path[len(head) :]).strip("/")
        return None

    def read(self, path: str, limit: int = 0) -> bytes | None:
        found = self.files.get(self.resolve(path) or "")
        return found if isinstance(found, bytes) else None

    def children(self, path: str) -> Sequence[str]:
        return sorted({name[len(path) + 1 :].split("/")[0] for name in self.files if name.startswith(f"{path}/")})

    @staticmethod
    def _parents(path: str) -> list[str]:
        parts = path.split("/")
        return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def root(*programs: str, **files: bytes | str) -> Files:
    return Files(**dict.fromkeys(programs, b"\x7fELF"), **files)


@pytest.mark.parametrize(
    ("release", "status", "suite"),
    [
        (BOOKWORM, b"Package: x\n", "bookworm"),
        (BOOKWORM.replace(b"bookworm\n", b'"bookworm"\n'), b"", "bookworm"),
        (BOOKWORM, None, ""),  # distroless: no dpkg to add packages with
        (BOOKWORM.replace(b"bookworm", b"sid"), b"", ""),
        (UBUNTU, b"Package: x\n", "noble"),
        (UBUNTU.replace(b"noble", b"focal"), b"", ""),  # its Python is older than any that mlbox knows
        (UBUNTU.replace(b"noble", b"bookworm"), b"", ""),  # another distribution's release of that name
        (UBUNTU.replace(b"ID=ubuntu", b"ID=linuxmint"), b"", ""),
        (b"", None, ""),
    ],
)
def test_the_debian_release_whose_packages_fit(release: bytes, status: bytes | None, suite: str) -> None:
    """Only a release whose packages are known, and an image that has dpkg's notes."""
    more = {} if status is None else {STATUS: status}
    assert (
        system_of(Files(**{"usr/lib/os-release": release, "etc/os-release": "../usr/lib/os-release", **more})).suite
        == suite
    )


def test_a_system_has_a_name() -> None:
    """What os-release says, for messages."""
    assert system_of(Files(**{"etc/os-release": UBUNTU})).name == "Ubuntu 24.04.1 LTS"
    assert system_of(Files(**{"etc/os-release": b'PRETTY_NAME="a\x1b[31mb"'})).name == "a[31mb"
    assert system_of(Files()).name == "an unknown distribution"


@pytest.mark.parametrize(
    ("files", "installed", "version"),
    [
        ({LIBC: GLIBC}, {"libc6": "2.99-1"}, "2.36"),
        ({"lib64/libc.so.6": GLIBC.replace(b"2.36", b"2.34")}, {}, "2.34"),
        ({"lib": "usr/lib", f"usr/{LIBC}": "libc-2.31.so", "usr/lib/x86_64-linux-gnu/libc-2.31.so": b""}, {}, "2.31"),
        ({}, {"libc6": "2.41-12+deb13u1"}, "2.41"),
    ],
)
def test_the_version_of_glibc(files: dict[str, bytes | str], installed: dict[str, str], version: str) -> None:
    """What the library says of itself, then its file's name, then dpkg."""
    assert glibc_of(Files(**files), "amd64", installed, name="x") == version


@pytest.mark.parametrize(("files", "words"), [({"lib/ld-musl-x86_64.so.1": b""}, "musl"), ({}, "no C library")])
def test_other_c_libraries_are_refused(files: dict[str, bytes | str], words: str) -> None:
    """Wheels are for glibc; the error says what is there instead."""
    with pytest.raises(LockError, match=words):
        glibc_of(Files(**files), "amd64", {}, name="x")


@pytest.mark.parametrize(
    ("files", "env", "found"),
    [
        (root("usr/local/bin/python3.12", "usr/bin/python3.11"), PATH, [LOCAL, SYSTEM]),
        (root("usr/local/bin/python3.12", "usr/bin/python3.11"), {}, [LOCAL, SYSTEM]),
        (root("usr/bin/python3.11", bin="usr/bin"), {"PATH": "/usr/bin:/bin"}, [SYSTEM]),
        (root("opt/conda/bin/python3.12"), {}, [Interpreter(python="3.12", home="/opt/conda/bin")]),
        (root("opt/some/bin/python3.9"), PATH, [Interpreter(python="3.9", home="/opt/some/bin")]),
        (root("usr/bin/python3", "usr/bin/python3.11-config", "usr/bin/pythonx"), PATH, []),
        (root(**{"usr/bin/python3.11": "/gone"}), PATH, []),
        (root(**{"root/.pyenv/shims/python3.11": b"#!/bin/sh"}), {"PATH": "/root/.pyenv/shims"}, []),
        (
            root("root/.local/py/bin/python3.12"),
            {"PATH": "/root/.local/py/bin"},
            [Interpreter(python="3.12", home="/root/.local/py/bin")],
        ),
    ],
)
def test_pythons_in_the_order_of_the_search_path(files: Files, env: dict[str, str], found: list[Interpreter]) -> None:
    """PATH first, then the usual folders; one program is found once, a dangling link not at all."""
    assert interpreters(files, env) == found


def test_odd_folders_are_no_place_for_python() -> None:
    """A path that a shell or a terminal would read otherwise is passed over."""
    folders = ("x y/bin", "x\x1b[31m/bin", "x;y/bin", "x/../bin")
    files = root(*(f"{folder}/python3.12" for folder in folders))

    assert interpreters(files, {"PATH": ":".join(f"/{folder}" for folder in folders) + ":relative"}) == []


def test_of_one_folder_python3_says_which() -> None:
    """'python3' decides; else the newest, by number."""
    programs = ("usr/bin/python3.9", "usr/bin/python3.11", "usr/bin/python3.10")

    assert [one.python for one in interpreters(root(*programs), PATH)] == ["3.11", "3.10", "3.9"]
    chosen = root(*programs, **{"usr/bin/python3": "python3.9"})
    assert [one.python for one in interpreters(chosen, PATH)] == ["3.9", "3.11", "3.10"]


def test_an_environment_is_no_place_for_another() -> None:
    """The Python of a virtual environment is only a link to the one that counts."""
    files = root("usr/bin/python3.11", "venv/pyvenv.cfg", **{"venv/bin/python3.11": "/usr/bin/python3.11"})

    assert interpreters(files, {"PATH": "/venv/bin:/usr/bin"}) == [SYSTEM]


def test_a_program_of_many_names_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and programs may be links to one another, as many as somebody likes."""
    links = {f"usr/bin/python3.{minor}": "python3.12" for minor in range(20, 60)}
    files = root("usr/bin/python3.12", **links, **{f"l{number}": "usr/bin" for number in range(100)})
    read: list[str] = []
    plain = Files.read
    monkeypatch.setattr(Files, "read", lambda self, path, limit=0: read.append(path) or plain(self, path))
    assert {one.home for one in interpreters(files, {"PATH": ":".join(f"/l{number}" for number in range(100))})} == {
        "/l0"
    }
    assert read == ["usr/bin/python3.12"]


HEADER = b'#define PY_MAJOR_VERSION 3\n#define PY_VERSION      \t"3.12.4"\n'


@pytest.mark.parametrize(
    ("files", "env", "version"),
    [
        ({"usr/local/include/python3.12/patchlevel.h": HEADER}, {"PYTHON_VERSION": "3.12.9"}, "3.12.4"),
        ({"usr/local/include/python3.12/patchlevel.h": HEADER.replace(b"3.12.4", b"3.12.4+")}, {}, "3.12.4"),
        ({"usr/local/conda-meta/python-3.12.7-h5_cpython.json": b"{}"}, {}, "3.12.7"),
        ({"usr/local/lib/libpython3.12.so.1.0": b"\0%s\0003.12.5\0ELF"}, {}, "3.12.5"),
        ({"usr/local/lib64/libpython3.12.so.1.0": b"\0003.12.5+\0"}, {}, "3.12.5"),
        ({"usr/local/lib/libpython3.12.so.1.0": b"/x/3.12.1\0/y/3.12.1/lib\0"}, {}, "3.12.1"),
        ({"usr/local/lib/libpython3.12.so.1.0": b"\0003.12.5\0003.12.6\0"}, {"PYTHON_VERSION": "3.12.8"}, "3.12.8"),
        ({}, {"PYTHON_VERSION": "3.12.8"}, "3.12.8"),
        ({}, {"PYTHON_VERSION": "3.11.8"}, ""),
        ({"usr/local/include/python3.12/patchlevel.h": b'#define PY_VERSION "4"\n'}, {}, ""),
    ],
)
def test_the_exact_version(files: dict[str, bytes | str], env: dict[str, str], version: str) -> None:
    """The header, conda's notes, the program itself, and the variable last; nothing that contradicts the name."""
    there = root("usr/local/bin/python3.12", **files)
    assert full_version(there, LOCAL, env, {"python3.12-minimal": "3.12.99-1"}) == version


def test_dpkg_knows_its_own_python() -> None:
    """Below /usr it is Debian's."""
    there = root("usr/bin/python3.11")
    assert full_version(there, SYSTEM, {}, {"python3.11-minimal": "3.11.2-6+deb12u6"}) == "3.11.2"


def test_the_choice() -> None:
    """The image's own first, unless the project says which; none when Debian brings the wanted one."""
    assert choose_interpreter([LOCAL, SYSTEM], "", name="x", system=DEBIAN) == LOCAL
    assert choose_interpreter([LOCAL, SYSTEM], "3.11", name="x", system=OTHER) == SYSTEM
    assert choose_interpreter([], "", name="x", system=DEBIAN) is None
    assert choose_interpreter([], "3.11", name="x", system=DEBIAN) is None
    assert choose_interpreter([], "3.12", name="x", system=NOBLE) is None


@pytest.mark.parametrize(
    ("found", "python", "system", "words"),
    [
        ([LOCAL], "3.13", DEBIAN, r"has Python 3\.12 \(/usr/local/bin/python3\.12\), and the project asks for 3\.13"),
        ([], "3.12", DEBIAN, r"brings 3\.11, and the project asks for 3\.12"),
        ([], "3.11", NOBLE, r"has no Python; Ubuntu noble, which it is made of, brings 3\.12, and the project asks"),
        ([], "", OTHER, r"\(Fedora 42\) has no Python, .* only to Debian .*trixie or Ubuntu jammy, noble"),
    ],
)
def test_contradictions(found: list[Interpreter], python: str, system: System, words: str) -> None:
    """The error names what the image has and what the project asks for."""
    with pytest.raises(LockError, match=words) as refused:
        choose_interpreter(found, python, name="x", system=system)
    assert refused.value.hint
