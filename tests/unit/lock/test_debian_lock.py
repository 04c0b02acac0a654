"""Resolving a base from a signed archive: signatures, hashes, dependencies, and what a relock keeps."""

import lzma
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pysequoia
import pytest
from fakes.debian import BASE, DebianArchive, FileHttp, stanza

from mlbox.errors import FetchError, LockError, ResolveError, SignatureError
from mlbox.lock.debian import Asked, DebianLock, lock_debian
from mlbox.lock.debian.packages import Relation, flat, groups, parse_candidate
from mlbox.lock.debian.release import parse_date
from mlbox.lock.debian.sources import Mirror, Mirrors
from mlbox.lock.model import Deb

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def archive(tmp_path: Path) -> DebianArchive:
    return DebianArchive(tmp_path / "archive")


def lock(
    archive: DebianArchive,
    *packages: str,
    locked: Sequence[Deb] = (),
    upgrade: bool = False,
    http: FileHttp | None = None,
    mirrors: Mirrors | None = None,
    with_python: bool = True,
) -> DebianLock:
    asked = Asked(
        suite="bookworm",
        arch="amd64",
        packages=packages,
        http=http or FileHttp(),
        cache=archive.root / "cache",
        mirrors=mirrors or archive.mirrors,
        keys=archive.keys,
        locked=locked,
        upgrade=upgrade,
        now=NOW,
    )
    return lock_debian(asked, with_python=with_python)


def versions(found: DebianLock) -> dict[str, str]:
    return {deb.name: deb.version for deb in found.debs}


def test_the_base_says_what_the_target_is(archive: DebianArchive) -> None:
    archive.publish_all()
    found = lock(archive)
    assert (found.suite, found.python_full, found.glibc) == ("bookworm", "3.11.2", "2.36")
    assert {deb.role for deb in found.debs} == {"base"}
    assert [deb.name for deb in found.debs] == sorted(versions(found))
    assert "gawk" in versions(found)  # of two that provide awk, the first by name


def test_below_conda_there_is_no_python(archive: DebianArchive) -> None:
    """What is essential, certificates, and the C++ library that wheels count on."""
    archive.publish_all([*BASE, stanza("libstdc++6", "12.2.0-14", Depends="libc6")])
    found = lock(archive, with_python=False)
    assert (found.python_full, found.glibc) == ("", "2.36")
    assert not [name for name in versions(found) if "python" in name]
    assert {"ca-certificates", "libc6", "libstdc++6"} <= versions(found).keys()


def test_relocking_asks_for_the_releases_only(archive: DebianArchive) -> None:
    archive.publish_all()
    first, http = lock(archive), FileHttp()
    assert lock(archive, http=http, locked=first.debs) == first
    assert sorted(url.rpartition("/")[2] for url in http.asked) == ["InRelease"] * 3


def test_the_newest_of_all_suites_is_taken(archive: DebianArchive) -> None:
    thing = stanza("thing", "1.0-1", Depends="libthing (>= 1.0)")
    archive.publish_all(
        [*BASE, thing, stanza("libthing", "1.0-1")],
        updates=[stanza("thing", "1.0-1+deb12u1", Depends="libthing (>= 1.0)")],
        security=[stanza("libthing", "1.0-1+deb12u2")],
    )
    found = {deb.name: deb for deb in lock(archive, "thing").debs}
    assert (found["thing"].version, found["thing"].suite) == ("1.0-1+deb12u1", "bookworm-updates")
    assert (found["libthing"].version, found["libthing"].suite) == ("1.0-1+deb12u2", "bookworm-security")
    assert (found["thing"].role, found["libc6"].role) == ("system", "base")


def test_a_relock_keeps_what_it_can_and_moves_what_it_must(archive: DebianArchive) -> None:
    old = [stanza("one", "1"), stanza("two", "1"), stanza("three", "1", Depends="two (= 1)")]
    archive.publish_all([*BASE, *old])
    first = lock(archive, "one", "three")
    fresh = [stanza("one", "2"), stanza("two", "2"), stanza("three", "2", Depends="two (= 2)")]
    archive.publish_all([*BASE, *old], security=fresh)
    assert lock(archive, "one", "three", locked=first.debs) == first
    assert versions(lock(archive, "one", "three", locked=first.debs, upgrade=True))["one"] == "2"
    # 'two' 1 is gone, so 'three' must move with it; 'one' stays.
    archive.publish_all([*BASE, old[0], old[2]], security=fresh)
    moved = versions(lock(archive, "one", "three", locked=first.debs))
    assert (moved["one"], moved["two"], moved["three"]) == ("1", "2", "2")


def test_alternatives_and_virtual_packages(archive: DebianArchive) -> None:
    archive.publish_all(
        [
            *BASE,
            stanza("app", Depends="absent | real, mail-agent, versioned (>= 2)"),
            stanza("real"),
            stanza("zmail", Provides="mail-agent", Priority="important"),
            stanza("amail", Provides="mail-agent", Priority="optional"),
            stanza("bad", Provides="versioned"),
            stanza("worse", Provides="versioned (= 1)"),
            stanza("good", Provides="versioned (= 2)"),
        ]
    )
    names = versions(lock(archive, "app"))
    assert {"real", "zmail", "good"} <= names.keys()
    assert not {"amail", "bad", "worse"} & names.keys()


def test_an_alternative_that_is_there_anyway_is_not_doubled(archive: DebianArchive) -> None:
    archive.publish_all(
        [
            *BASE,
            stanza("app", Depends="heavy | light"),
            stanza("other", Depends="light"),
            stanza("heavy"),
            stanza("light"),
        ]
    )
    assert "heavy" not in versions(lock(archive, "app", "other"))


@pytest.mark.parametrize(
    ("packages", "message", "hint"),
    [
        (["libgomp2"], "no Debian package libgomp2", "libgomp1"),
        (["qqqq"], "no Debian package qqqq", "names of Debian packages"),
        (["top"], r"middle needs bottom \(>= 9\), but the archive has bottom 1 \(top -> middle\)", "mirror"),
        (["lost"], "lost needs nowhere, which is missing", "mirror"),
        (
            ["cat", "dog"],
            "dog .* and cat .* exclude each other|cat .* and dog .* exclude each other",
            "system-packages",
        ),
    ],
)
def test_what_cannot_be_resolved_is_explained(
    archive: DebianArchive, packages: list[str], message: str, hint: str
) -> None:
    archive.publish_all(
        [
            *BASE,
            stanza("top", Depends="middle"),
            stanza("middle", Pre_Depends="bottom (>= 9)"),
            stanza("bottom", "1"),
            stanza("lost", Depends="nowhere"),
            stanza("cat"),
            stanza("dog", Breaks="cat (<< 2)"),
        ]
    )
    with pytest.raises(ResolveError, match=message) as problem:
        lock(archive, *packages)
    assert hint in (problem.value.hint or "")


def test_a_file_changed_after_signing_stops_everything(archive: DebianArchive) -> None:
    archive.publish_all()
    path = archive.release_path()
    path.write_bytes(path.read_bytes().replace(b"Suite: stable", b"Suite: stabel"))
    with pytest.raises(SignatureError, match="not signed by a key"):
        lock(archive)


def test_only_the_signed_part_counts(archive: DebianArchive) -> None:
    archive.publish_all()
    path = archive.release_path()
    signed = path.read_bytes()
    head = b"Origin: Debian\nCodename: bookworm\nSHA256:\n " + b"0" * 64 + b" 1 main/binary-amd64/Packages\n\n"
    path.write_bytes(head + signed)
    assert lock(archive).python_full == "3.11.2"


def test_a_stranger_who_says_he_is_debian_stops_everything(archive: DebianArchive) -> None:
    archive.publish_all()
    archive.publish("bookworm", BASE, key=pysequoia.Tsk.generate("somebody"))
    with pytest.raises(SignatureError, match="not signed"):
        lock(archive)


def test_without_keyring_nothing_is_trusted(archive: DebianArchive) -> None:
    archive.publish_all()
    (archive.keys.keyrings / "debian-archive-test.gpg").unlink()
    with pytest.raises(SignatureError, match="no keyring") as problem:
        lock(archive)
    assert "debian-archive-keyring" in (problem.value.hint or "")


def test_a_key_named_by_the_source_is_trusted(archive: DebianArchive) -> None:
    archive.publish_all()
    (archive.keys.keyrings / "debian-archive-test.gpg").unlink()
    mirror = Mirror(root=archive.url, signed_by=(str(archive.key.extract_certificate()),))
    assert lock(archive, mirrors=Mirrors(main=(mirror,), security=(mirror,))).glibc == "2.36"


def test_another_suite_under_the_asked_name_is_refused(archive: DebianArchive) -> None:
    archive.publish_all()
    archive.publish("bookworm", BASE, codename="bullseye")
    with pytest.raises(SignatureError, match=r"asked for Debian bookworm.*bullseye"):
        lock(archive)


def test_an_expired_release_is_refused(archive: DebianArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.publish_all()
    archive.publish("bookworm", BASE, extra="Valid-Until: Sat, 28 Feb 2026 23:59:59 UTC\n")
    with pytest.raises(SignatureError, match="valid until") as problem:
        lock(archive)
    assert "MLBOX_DEBIAN_VALID_UNTIL" in (problem.value.hint or "")
    monkeypatch.setenv("MLBOX_DEBIAN_VALID_UNTIL", "ignore")
    assert lock(archive).glibc == "2.36"


def test_an_index_other_than_the_signed_one_is_refused(archive: DebianArchive) -> None:
    archive.publish_all()
    (index,) = archive.release_path().parent.glob("main/binary-amd64/by-hash/SHA256/*")
    data = lzma.decompress(index.read_bytes()).replace(b"python3.11", b"python3.66")
    index.write_bytes(lzma.compress(data)[: index.stat().st_size].ljust(index.stat().st_size, b"\0"))
    with pytest.raises(SignatureError, match="not the file its signed Release names"):
        lock(archive)
    cached = list((archive.root / "cache").glob("debian/[0-9a-f]*"))
    assert not any(b"python3" in path.read_bytes() for path in cached)


@pytest.mark.parametrize(("packing", "by_hash"), [(".gz", True), (".xz", False), ("", True)])
def test_every_kind_of_index_is_read(archive: DebianArchive, packing: str, by_hash: bool) -> None:
    archive.publish_all()
    archive.publish("bookworm", BASE, packing=packing, by_hash=by_hash)
    assert lock(archive).glibc == "2.36"


def test_a_mirror_without_by_hash_folder_still_works(archive: DebianArchive) -> None:
    archive.publish_all()
    (index,) = archive.release_path().parent.glob("main/binary-amd64/by-hash/SHA256/*")
    index.rename(archive.release_path().parent / "main/binary-amd64/Packages.xz")
    assert lock(archive).glibc == "2.36"


def test_sources_of_others_are_passed_over(archive: DebianArchive, tmp_path: Path) -> None:
    archive.publish_all()
    other = tmp_path / "other/dists/bookworm/InRelease"
    other.parent.mkdir(parents=True)
    other.write_text("Origin: Somebody\nCodename: bookworm\n")
    stranger, missing = Mirror(root=f"file://{tmp_path}/other"), Mirror(root=f"file://{tmp_path}/none")
    both = Mirrors(main=(stranger, missing, *archive.mirrors.main), security=archive.mirrors.security)
    assert lock(archive, mirrors=both).glibc == "2.36"
    with pytest.raises(LockError, match="none of the configured mirrors"):
        lock(archive, mirrors=Mirrors(main=(stranger,)))
    with pytest.raises(FetchError):
        lock(archive, mirrors=Mirrors(main=(missing,)))


def test_without_security_archive_the_user_is_told(archive: DebianArchive) -> None:
    archive.publish_all()
    (note,) = lock(archive, mirrors=Mirrors(main=archive.mirrors.main)).notes
    assert "security" in note


def test_an_unknown_release_or_architecture_is_an_error(archive: DebianArchive) -> None:
    archive.publish_all()
    with pytest.raises(LockError, match="known: bullseye, bookworm"):
        lock_debian(Asked(suite="jammy", arch="amd64", http=FileHttp(), cache=archive.root))
    with pytest.raises(LockError, match="has no main/binary-arm64/Packages"):
        lock_debian(
            Asked(
                suite="bookworm", arch="arm64", http=FileHttp(), cache=archive.root,
                mirrors=archive.mirrors, keys=archive.keys, now=NOW,
            )
        )  # fmt: skip


def test_relations_are_read_as_they_stand_in_indexes() -> None:
    assert list(groups("a, b:any (>= 1.0~) | c ,d( << 2:3-4 )")) == [
        (Relation("a"),),
        (Relation("b", ">=", "1.0~"), Relation("c")),
        (Relation("d", "<<", "2:3-4"),),
    ]
    assert flat("x (= 1), y") == (Relation("x", "=", "1"), Relation("y"))
    assert list(groups("")) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"Filename": "/etc/passwd"},
        {"Filename": "pool/../../etc/passwd"},
        {"SHA256": "short"},
        {"Size": "many"},
        {"Depends": "a (>= 1"},
    ],
)
def test_a_hostile_stanza_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(LockError, match="describes the package evil badly"):
        parse_candidate(stanza("evil", **bad), "bookworm")


def test_dates() -> None:
    assert parse_date("Wed, 25 Nov 2026 22:17:41 UTC", "x") == datetime(2026, 11, 25, 22, 17, 41, tzinfo=UTC)
    for bad in ("", "Wed, 99 Nov 2026 22:17:41 UTC", "tomorrow"):
        with pytest.raises(SignatureError):
            parse_date(bad, "x")
