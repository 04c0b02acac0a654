"""Archives besides the release's: their own key and nobody else's, whoever has the highest version, old days."""

import gzip
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pysequoia
import pytest
from fakes.debian import BASE, DebianArchive, FileHttp, stanza

from mlbox.errors import FetchError, LockError, SignatureError
from mlbox.lock.debian import Asked, DebianLock, lock_debian, mirrors, read_extras
from mlbox.lock.debian.snapshot import Snapshot
from mlbox.lock.model import Deb
from mlbox.project.model import AptSource

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OLD, NEW = "Date: Sun, 01 Feb 2026 10:00:00 UTC\n", "Date: Sat, 28 Feb 2026 10:00:00 UTC\n"


class Vendor(DebianArchive):
    """Somebody else's archive, with the key as a file of the project."""

    def __init__(self, root: Path, project: Path) -> None:
        super().__init__(root)
        self.project = project
        (project / "keys").mkdir(parents=True, exist_ok=True)
        (project / "keys/vendor.asc").write_text(str(self.key.extract_certificate()))

    def put(
        self,
        stanzas: Sequence[str],
        *,
        suite: str = "stable",
        fields: str = "Origin: Vendor\nSuite: stable\n",
        parts: Sequence[str] = ("main/binary-amd64",),
        key: "pysequoia.Tsk | None" = None,
    ) -> None:
        """Publish a suite."""
        lines = "".join(self.index(suite, part, stanzas, packing=".gz", by_hash=False) for part in parts)
        self.sign(suite, fields, lines, by_hash=False, key=key)

    def put_folder(self, stanzas: Sequence[str], *, apart: bool = False) -> None:
        """Publish an archive that is one folder, naming only the packed index; `apart` with a detached signature."""
        packed = gzip.compress("\n".join(stanzas).encode())
        self.root.mkdir(exist_ok=True)
        (self.root / "Packages.gz").write_bytes(packed)
        text = f"Origin: Vendor\nSHA256:\n {hashlib.sha256(packed).hexdigest()} {len(packed)} Packages.gz\n".encode()
        mode = pysequoia.SignatureMode.DETACHED if apart else pysequoia.SignatureMode.CLEAR
        signed = pysequoia.sign(self.key.signer(), text, mode=mode)
        if apart:
            (self.root / "Release").write_bytes(text)
            (self.root / "Release.gpg").write_bytes(signed)
        else:
            (self.root / "InRelease").write_bytes(signed)


@pytest.fixture
def archive(tmp_path: Path) -> DebianArchive:
    found = DebianArchive(tmp_path / "archive")
    found.publish_all()
    return found


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path / "vendor", tmp_path / "project")


def source(vendor: Vendor, suite: str = "stable", uri: str | None = None) -> AptSource:
    return AptSource(
        name="the-vendor",
        uri=vendor.url if uri is None else uri,
        suite=suite,
        components=() if suite.endswith("/") else ("main",),
        key="keys/vendor.asc",
    )


def lock(
    archive: DebianArchive,
    vendor: Vendor,
    *packages: str,
    one: AptSource | None = None,
    locked: Sequence[Deb] = (),
    http: FileHttp | None = None,
    snapshot: str = "",
    env: dict[str, str] | None = None,
    now: datetime = NOW,
) -> DebianLock:
    asked = Asked(
        suite="bookworm",
        arch="amd64",
        packages=packages,
        http=http or FileHttp(),
        cache=archive.root / "cache",
        mirrors=None if snapshot else archive.mirrors,
        keys=archive.keys,
        locked=locked,
        now=now,
        snapshot=snapshot,
        extras=read_extras(vendor.project, [one or source(vendor)], env or {}),
    )
    return lock_debian(asked)


def deb(found: DebianLock, name: str) -> Deb:
    return next(one for one in found.debs if one.name == name)


def test_packages_of_a_source_are_locked_with_its_name(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put([stanza("tool", "19", Depends="libc6"), stanza("other")])
    tool = deb(lock(archive, vendor, "tool"), "tool")
    assert (tool.source, tool.suite, tool.role) == ("the-vendor", "stable", "system")
    assert vendor.url not in repr(tool)
    assert deb(lock(archive, vendor, "tool"), "libc6").source == ""


@pytest.mark.parametrize(
    ("theirs", "ours", "taken"),
    [("2.0-1", "1.0-1", "the-vendor"), ("1.0-1", "2.0-1", ""), ("1.0-1", "1.0-1", "")],
    ids=["newer", "older", "equal"],
)
def test_the_highest_version_wins_whoever_has_it(
    archive: DebianArchive, vendor: Vendor, theirs: str, ours: str, taken: str
) -> None:
    archive.publish_all([*BASE, stanza("tool", ours)])
    vendor.put([stanza("tool", theirs)])
    assert deb(lock(archive, vendor, "tool"), "tool").source == taken


def test_what_is_essential_only_the_release_says(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put([stanza("spyware", "1", Essential="yes"), stanza("tool")])
    assert "spyware" not in {one.name for one in lock(archive, vendor, "tool").debs}


def test_packages_for_every_machine_have_an_index_of_their_own(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put([stanza("data", Architecture="all")], parts=["main/binary-amd64", "main/binary-all"])
    assert deb(lock(archive, vendor, "data"), "data").arch == "all"


@pytest.mark.parametrize("apart", [False, True], ids=["InRelease", "Release.gpg"])
@pytest.mark.parametrize("suite", ["./", "/"], ids=["dot", "slash"])
def test_an_archive_that_is_one_folder(archive: DebianArchive, vendor: Vendor, suite: str, apart: bool) -> None:
    vendor.put_folder([stanza("tool", Filename="./tool.deb"), stanza("tool", "9", Architecture="arm64")], apart=apart)
    tool = deb(lock(archive, vendor, "tool", one=source(vendor, suite)), "tool")
    assert (tool.path, tool.version) == ("tool.deb", "1.0-1")


def test_a_detached_signature_of_another_text_is_none(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put_folder([stanza("tool")], apart=True)
    with (vendor.root / "Release").open("ab") as file:
        file.write(b" ")
    with pytest.raises(SignatureError, match=r"not signed by keys/vendor\.asc, the key of the source the-vendor"):
        lock(archive, vendor, "tool", one=source(vendor, "./"))


def test_the_archive_keys_of_the_host_do_not_count(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put([stanza("tool")], key=archive.key)
    with pytest.raises(SignatureError, match="the key of the source the-vendor"):
        lock(archive, vendor, "tool")


def test_the_key_of_a_source_does_not_count_for_the_release(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put([stanza("tool")])
    archive.publish("bookworm", BASE, key=vendor.key)
    with pytest.raises(SignatureError, match="not signed by a key that this host trusts for Debian"):
        lock(archive, vendor, "tool")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("Suite: nightly\n", "asked for the suite stable of the-vendor, but the signed file is of nightly"),
        ("Codename: sid\nSuite: unstable\n", "but the signed file is of sid or unstable"),
        ("Suite: stable\nValid-Until: Sun, 01 Feb 2026 00:00:00 UTC\n", "its signature was valid until"),
        ("Suite: stable\nDate: yesterday\n", "not a date"),
    ],
    ids=["other suite", "other codename", "expired", "no date"],
)
def test_a_signed_file_that_is_not_the_one_asked_for(
    archive: DebianArchive, vendor: Vendor, fields: str, message: str
) -> None:
    vendor.put([stanza("tool")], fields=fields)
    with pytest.raises(SignatureError, match=message):
        lock(archive, vendor, "tool")


HOSTILE = {
    "path that climbs": {"Filename": "pool/../../etc/passwd"},
    "absolute path": {"Filename": "/etc/passwd"},
    "path with a query": {"Filename": "pool/tool.deb?x=1"},
    "path with a blank": {"Filename": "pool/a b.deb"},
    "version with a newline's escape": {"Version": "1\\n2"},
    "version that is a path": {"Version": "../1"},
    "architecture that is a path": {"Architecture": "../amd64"},
    "no hash": {"SHA256": "0" * 63},
    "negative size": {"Size": "-1"},
    "size of another alphabet": {"Size": "\uff11\uff12"},
    "broken relation": {"Depends": "libc6 (>= "},
}


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE)
def test_hostile_packages_are_refused_by_name(archive: DebianArchive, vendor: Vendor, fields: dict[str, str]) -> None:
    vendor.put([stanza("tool", **fields)])
    one = source(vendor)
    if "Architecture" in fields:
        vendor.put_folder([stanza("tool", **fields)])
        one = source(vendor, "./")
    with pytest.raises(LockError, match=r"the index of the-vendor .* describes the package tool badly"):
        lock(archive, vendor, "tool", one=one)


def test_an_index_that_is_not_the_one_signed_for(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put([stanza("tool")])
    packed = vendor.root / "dists/stable/main/binary-amd64/Packages.gz"
    packed.write_bytes(gzip.compress(b"x", mtime=0).ljust(packed.stat().st_size, b"\0"))
    with pytest.raises(SignatureError, match="is not the file its signed Release names"):
        lock(archive, vendor, "tool")


def test_an_index_that_claims_to_be_huge(archive: DebianArchive, vendor: Vendor) -> None:
    """It is not even asked for."""
    lines = f" {'0' * 64} 999999999999 main/binary-amd64/Packages.gz\n"
    vendor.release_path("stable").parent.mkdir(parents=True)
    vendor.sign("stable", "Suite: stable\n", lines, by_hash=False)
    http = FileHttp()
    with pytest.raises(LockError, match="is said to have 999999999999 bytes"):
        lock(archive, vendor, "tool", http=http)
    assert not [url for url in http.asked if url.startswith(vendor.url) and url.endswith("Packages.gz")]


def test_a_missing_machine_is_said(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put([stanza("tool")], parts=["main/binary-s390x"])
    with pytest.raises(LockError, match=r"source the-vendor stable at .* has no main/binary-amd64/Packages"):
        lock(archive, vendor, "tool")


def test_updates_are_not_taken_back(archive: DebianArchive, vendor: Vendor) -> None:
    """An older release than the one seen last there is passed over, as by apt."""
    archive.publish("bookworm", [*BASE, stanza("ours", "2")], extra=NEW)
    vendor.put([stanza("tool", "2")], fields=f"Suite: stable\n{NEW}")
    assert deb(lock(archive, vendor, "tool"), "tool").version == "2"
    archive.publish("bookworm", [*BASE, stanza("ours", "1")], extra=OLD)
    vendor.put([stanza("tool", "1")], fields=f"Suite: stable\n{OLD}")
    again = lock(archive, vendor, "tool", "ours")
    assert (deb(again, "tool").version, deb(again, "ours").version) == ("2", "2")


def test_an_old_release_is_held_only_while_it_is_valid(archive: DebianArchive, vendor: Vendor) -> None:
    """Who seems younger than everybody else cannot freeze an archive for ever."""
    vendor.put([stanza("tool", "2")], fields=f"Suite: stable\n{NEW}Valid-Until: Sat, 28 Feb 2026 11:00:00 UTC\n")
    lock(archive, vendor, "tool", now=datetime(2026, 2, 28, 10, 30, tzinfo=UTC))
    vendor.put([stanza("tool", "1")], fields=f"Suite: stable\n{OLD}")
    soon = lock(archive, vendor, "tool", now=datetime(2026, 2, 28, 10, 45, tzinfo=UTC))
    assert [deb(found, "tool").version for found in (soon, lock(archive, vendor, "tool"))] == ["2", "1"]


def test_the_host_may_say_where_a_source_is(archive: DebianArchive, vendor: Vendor) -> None:
    vendor.put([stanza("tool")])
    variable = {"MLBOX_APT_SOURCE_THE_VENDOR": f"file:///nowhere {vendor.url}/"}
    found = lock(archive, vendor, "tool", one=source(vendor, uri=""), env=variable)
    tool = deb(found, "tool")
    assert mirrors(tool, sources=[source(vendor)], env={}) == [vendor.url]
    assert mirrors(tool, sources=[source(vendor)], env=variable) == ["file:///nowhere", vendor.url]
    with pytest.raises(LockError, match="nothing says where the source of packages 'the-vendor' is") as problem:
        mirrors(tool, env={})
    assert "MLBOX_APT_SOURCE_THE_VENDOR" in str(problem.value.hint)


def test_credentials_are_not_said(archive: DebianArchive, vendor: Vendor) -> None:
    class Refusing(FileHttp):
        def get(self, url: str, *, limit: int) -> bytes:
            if "secret" in url:
                return b"nothing signed"
            return super().get(url, limit=limit)

    env = {"MLBOX_APT_SOURCE_THE_VENDOR": "https://me:secret@apt.example/x"}
    with pytest.raises(SignatureError) as problem:
        lock(archive, vendor, "tool", env=env, http=Refusing())
    assert "secret" not in problem.value.message + str(problem.value.hint)


@pytest.mark.parametrize(
    "key", [b"", b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"], ids=["empty", "text", "cut"]
)
def test_a_file_that_is_no_key(vendor: Vendor, key: bytes) -> None:
    (vendor.project / "keys/vendor.asc").write_bytes(key)
    with pytest.raises(LockError, match=r"keys/vendor\.asc, is no OpenPGP public key"):
        read_extras(vendor.project, [source(vendor)], {})


# Days.


def dated(archive: DebianArchive, monkeypatch: pytest.MonkeyPatch, date: str, template: str) -> None:
    for suite in ("bookworm", "bookworm-updates", "bookworm-security"):
        archive.publish(suite, BASE if suite == "bookworm" else (), extra=date)
    monkeypatch.setenv("MLBOX_DEBIAN_SNAPSHOT", f"{archive.root.parent.as_uri()}/{template}")


@pytest.mark.parametrize("template", ["{archive}/{timestamp}", "{archive}/{date}"])
def test_packages_of_a_day(tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    """What was valid then is valid, and the signature is checked all the same."""
    vendor.put([stanza("tool")])
    archive = DebianArchive(tmp_path / "archive")
    valid = "Date: Sun, 31 Aug 2025 20:00:00 UTC\nValid-Until: Sun, 07 Sep 2025 20:00:00 UTC\n"
    dated(archive, monkeypatch, valid, template)
    stamp = "20250901T000000Z" if "timestamp" in template else "20250901"
    for name in ("debian", "debian-security"):
        (tmp_path / name).mkdir()
        (tmp_path / name / stamp).symlink_to(archive.root)
    found = lock(archive, vendor, "tool", snapshot="2025-09-01")
    libc = deb(found, "libc6")
    env = {"MLBOX_DEBIAN_SNAPSHOT": f"https://old.example/{template}", "MLBOX_DEBIAN_MIRROR": "https://new.example"}
    assert mirrors(libc, env=env) == mirrors(libc, snapshot="2025-09-01", env={**env, "MLBOX_DEBIAN_SNAPSHOT": ""})
    then = mirrors(libc, snapshot="2025-09-01", env=env)
    assert then[0] == "https://new.example"
    assert f"https://old.example/debian/{stamp}" in then
    with pytest.raises(SignatureError, match="valid until"):
        lock(archive, vendor, "tool")
    archive.publish("bookworm-updates", (), extra=valid, key=pysequoia.Tsk.generate("Somebody else"))
    with pytest.raises(SignatureError, match="not signed by a key"):
        lock(archive, vendor, "tool", snapshot="2025-09-01")


def test_a_mirror_that_does_not_go_back(
    archive: DebianArchive, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Today's packages in the place of that day's are noticed by the date that is signed."""
    dated(archive, monkeypatch, NEW, "archive?{timestamp}")
    (archive.root.parent / "archive?20250901T000000Z").symlink_to(archive.root)
    with pytest.raises(SignatureError, match=r"of 2026-02-28 10:00, asked for was that of 2025-09-01"):
        lock(archive, vendor, snapshot="2025-09-01")


@pytest.mark.parametrize(
    ("template", "message"),
    [("", "no mirror that keeps old ones is configured"), ("https://me:secret@m.example/d", "says nowhere which day")],
    ids=["none", "no day"],
)
def test_no_mirror_of_old_packages(
    archive: DebianArchive, vendor: Vendor, monkeypatch: pytest.MonkeyPatch, template: str, message: str
) -> None:
    monkeypatch.setenv("MLBOX_DEBIAN_SNAPSHOT", template)
    with pytest.raises(LockError, match=message) as problem:
        lock(archive, vendor, snapshot="2025-09-01")
    assert "MLBOX_DEBIAN_SNAPSHOT" in problem.value.message + str(problem.value.hint)
    assert "secret" not in problem.value.message


def test_a_day_ends_with_its_last_second() -> None:
    day, second = Snapshot(text="2026-09-01"), Snapshot(text="2026-09-01T12:00:01Z")
    assert (day.begin, day.end) == (datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 9, 1, 23, 59, 59, tzinfo=UTC))
    assert second.begin == second.end == datetime(2026, 9, 1, 12, 0, 1, tzinfo=UTC)


def test_what_a_source_lacks_is_fetched_nowhere_else(archive: DebianArchive, vendor: Vendor) -> None:
    with pytest.raises(FetchError):
        lock(archive, vendor, "tool")
