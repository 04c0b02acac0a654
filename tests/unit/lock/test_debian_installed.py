"""Debian packages on an image that has some: those stay, unless something needs a newer version."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.debian import BASE, DebianArchive, FileHttp, stanza

from mlbox.errors import LockError, ResolveError
from mlbox.lock.debian import Asked, DebianLock, lock_on_base
from mlbox.lock.debian.installed import read_status
from mlbox.lock.model import Deb

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def installed(name: str, version: str = "1.0-1", **fields: str) -> str:
    """Return a stanza of dpkg's status file."""
    said = {"Package": name, "Status": "install ok installed", "Architecture": "amd64", "Version": version, **fields}
    return "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in said.items())


LIBC = installed("libc6", "2.36-9+deb12u1")


def lock(
    tmp_path: Path,
    offered: Sequence[str],
    have: Sequence[str],
    *wanted: str,
    locked: Sequence[Deb] = (),
    security: Sequence[str] = (),
    movable: bool = True,
) -> DebianLock:
    archive = DebianArchive(tmp_path / "archive")
    archive.publish_all([*BASE, *offered], security=security)
    asked = Asked(
        suite="bookworm",
        arch="amd64",
        packages=wanted,
        http=FileHttp(),
        cache=tmp_path / "cache",
        mirrors=archive.mirrors,
        keys=archive.keys,
        locked=locked,
        now=NOW,
    )
    return lock_on_base(asked, status="\n".join(have).encode(), movable=movable)


def versions(found: DebianLock) -> dict[str, str]:
    return {deb.name: deb.version for deb in found.debs}


def test_only_what_is_missing_is_added(tmp_path: Path) -> None:
    """What the image has satisfies dependencies, by name and by what it provides, in its own version."""
    offered = [
        stanza("app", Depends="libc6 (>= 2.30), lib, awk, editor"),
        stanza("lib"),
        stanza("nano", Provides="editor"),
    ]
    have = [LIBC, installed("mine", "9", Provides="editor"), installed("gawk", "2", Provides="awk")]

    found = lock(tmp_path, offered, have, "app")

    assert versions(found) == {"app": "1.0-1", "lib": "1.0-1"}
    assert {deb.role for deb in found.debs} == {"system"}
    assert found.glibc == "2.36"
    assert found.notes == ()


def test_python_comes_from_the_release(tmp_path: Path) -> None:
    """A base without Python gets the one of its release, and the lock learns which it is."""
    found = lock(tmp_path, [], [LIBC], "python3")

    assert versions(found) == {"python3": "3.11.2-1", "python3.11": "3.11.2-6"}
    assert found.python_full == "3.11.2"


def test_what_is_there_needs_nothing(tmp_path: Path) -> None:
    """Asking for an installed package adds nothing, newer as the archive's may be."""
    assert lock(tmp_path, [stanza("app", "2")], [LIBC, installed("app", "1")], "app").debs == ()


def test_a_newer_version_is_taken_where_it_is_needed(tmp_path: Path) -> None:
    """The installed package moves, with those that must be of its very version, and the user hears of it."""
    offered = [stanza("app", Depends="lib (>= 2)"), stanza("lib", "2"), stanza("lib-data", "2", Depends="lib (= 2)")]
    have = [LIBC, installed("lib", "1"), installed("lib-data", "1", Depends="lib (= 1)")]

    found = lock(tmp_path, offered, have, "app")

    assert versions(found) == {"app": "1.0-1", "lib": "2", "lib-data": "2"}
    assert "lib 1 -> 2, lib-data 1 -> 2" in found.notes[0]


def test_nothing_moves_where_it_cannot(tmp_path: Path) -> None:
    """On an image whose /lib is no link a newer library would lie beside the older one: refused, naming both."""
    offered = [stanza("app", Depends="lib (>= 2)"), stanza("lib", "2")]

    with pytest.raises(ResolveError, match=r"app needs lib \(>= 2\), but the archive has lib 1 \(the base has it\)"):
        lock(tmp_path, offered, [LIBC, installed("lib", "1")], "app", movable=False)


def test_nothing_becomes_older(tmp_path: Path) -> None:
    """A version that the archive does not have newer stays, and what cannot live with it is refused."""
    offered = [stanza("app", Depends="lib (= 1)"), stanza("lib", "1")]

    with pytest.raises(ResolveError, match=r"app needs lib \(= 1\), but the archive has lib 5"):
        lock(tmp_path, offered, [LIBC, installed("lib", "5")], "app")


def test_what_breaks_an_installed_package_moves_it(tmp_path: Path) -> None:
    """Breaks against the installed version is met by a newer one."""
    offered = [stanza("app", Breaks="old (<< 2)"), stanza("old", "2")]

    assert versions(lock(tmp_path, offered, [LIBC, installed("old", "1")], "app")) == {"app": "1.0-1", "old": "2"}


def test_packages_of_others_count(tmp_path: Path) -> None:
    """A package that no archive offers is there all the same."""
    offered = [stanza("app", Depends="vendor-runtime (>= 12)")]

    assert list(versions(lock(tmp_path, offered, [LIBC, installed("vendor-runtime", "12.6")], "app"))) == ["app"]


def test_locked_versions_stay(tmp_path: Path) -> None:
    """A relock keeps the added packages while the archive has them."""
    first = lock(tmp_path / "one", [stanza("app", "1")], [LIBC], "app")
    again = lock(
        tmp_path / "two", [stanza("app", "1")], [LIBC], "app", locked=first.debs, security=[stanza("app", "2")]
    )

    assert versions(again) == {"app": "1"}


def test_the_status_file() -> None:
    """Only what is installed, for this machine; a package on hold is installed too."""
    held = installed("held").replace("install ok", "hold ok")
    gone = installed("gone").replace("ok installed", "ok config-files")
    other = installed("libc6", Architecture="i386")
    text = "\n".join([LIBC, held, gone, other, installed("data", Architecture="all"), "\n"])

    assert set(read_status(text.encode(), "amd64")) == {"libc6", "held", "data"}
    assert read_status(b"", "amd64") == {}


@pytest.mark.parametrize(
    "stanza",
    [
        installed("odd", Depends="((("),
        installed("odd", "1\x1b[31m"),
        installed("odd\x1b[31m"),
        installed("odd").replace("Version", "V"),
    ],
)
def test_a_status_file_that_makes_no_sense(stanza: str) -> None:
    """The error names the package, and nothing of it moves the cursor."""
    with pytest.raises(LockError, match="odd") as refused:
        read_status(stanza.encode(), "amd64")
    assert refused.value.message.isprintable()
