"""Packages of Ubuntu on an image that has some: mirrors of a host of Ubuntu's, its archive's own ways, its keys."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pysequoia
import pytest
from fakes.debian import DebianArchive, FileHttp, UbuntuArchive, stanza

from mlbox.engine.arch import host_arch
from mlbox.errors import FetchError, LockError, ResolveError, SignatureError
from mlbox.lock.debian import Asked, DebianLock, lock_on_base, mirrors
from mlbox.lock.debian.distributions import DEBIAN, KNOWN, UBUNTU, distribution_of, series_of
from mlbox.lock.debian.release import parse_release
from mlbox.lock.debian.sources import Mirror, Mirrors, read_mirrors
from mlbox.lock.model import Deb

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LIBC = "Package: libc6\nStatus: install ok installed\nArchitecture: {arch}\nVersion: 2.39-0ubuntu8.3\n"
PYTHON = (
    stanza("python3", "3.12.3-0ubuntu2", Depends="python3.12 (>= 3.12.3-0~)"),
    stanza("python3.12", "3.12.3-1", Depends="libc6 (>= 2.38)"),
)
NOBLE = """\
Types: deb
URIs: http://de.archive.example/ubuntu/
Suites: noble noble-updates noble-backports
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

Types: deb
URIs: http://security.example/ubuntu/
Suites: noble-security
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""
JAMMY = """\
# See somewhere for how to upgrade
deb http://archive.example/ubuntu/ jammy main restricted
deb http://archive.example/ubuntu/ jammy-updates main restricted
deb http://archive.example/ubuntu/ jammy universe
# deb-src http://archive.example/ubuntu/ jammy universe
deb http://security.example/ubuntu/ jammy-security main restricted
"""


def mirrors_of(suite: str, **options: object) -> list[str]:
    """Return the roots for a package of `suite`."""
    deb = Deb(name="thing", version="1", arch="amd64", path="pool/t.deb", sha256="", size=1, suite=suite, role="system")
    return mirrors(deb, **options)  # type: ignore[arg-type]


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    """An empty configuration of apt."""
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    return tmp_path / "apt"


@pytest.fixture
def archive(tmp_path: Path) -> UbuntuArchive:
    """An archive without suites."""
    return UbuntuArchive(tmp_path / "archive")


def lock(
    archive: DebianArchive,
    *packages: str,
    suite: str = "noble",
    arch: str = "amd64",
    status: str = LIBC,
    locked: Sequence[Deb] = (),
    mirrors: Mirrors | None = None,
    snapshot: str = "",
) -> DebianLock:
    """Lock packages on an image of `suite`."""
    asked = Asked(
        suite=suite,
        arch=arch,
        packages=packages,
        http=FileHttp(),
        cache=archive.root / "cache",
        mirrors=None if snapshot else mirrors or archive.mirrors,
        keys=archive.keys,
        locked=locked,
        now=NOW,
        snapshot=snapshot,
    )
    return lock_on_base(asked, status=status.format(arch=arch).encode(), movable=True)


def found(mirrors: Mirrors) -> tuple[list[str], list[str]]:
    """Return the roots of the mirrors and of those for security."""
    return [one.root for one in mirrors.main], [one.root for one in mirrors.security]


@pytest.mark.parametrize(
    ("suite", "distribution", "python"),
    [
        ("noble", UBUNTU, "3.12"),
        ("noble-security", UBUNTU, "3.12"),
        ("jammy-updates", UBUNTU, "3.10"),
        ("bookworm-security", DEBIAN, "3.11"),
        ("focal", DEBIAN, ""),  # nobody's: its Python is too old for mlbox
        ("", DEBIAN, ""),
    ],
)
def test_whose_a_suite_is(suite: str, distribution: object, python: str) -> None:
    """One table says which distribution a suite is of, and which Python its release has."""
    series = series_of(suite)

    assert distribution_of(suite) is distribution
    assert (series.python if series else "") == python


def test_a_host_of_noble(apt: Path) -> None:
    """deb822, with sources of others before it that call their suites alike."""
    (apt / "sources.list.d/docker.list").write_text("deb [arch=amd64] http://docker.example/ubuntu noble stable\n")
    (apt / "sources.list.d/ubuntu.sources").write_text(NOBLE)
    (apt / "sources.list").write_text("# Ubuntu sources have moved to ubuntu.sources\n")

    mirrors = read_mirrors(apt, {}, UBUNTU, arch="amd64", host="amd64")

    assert found(mirrors) == (["http://de.archive.example/ubuntu"], ["http://security.example/ubuntu"])
    assert mirrors.main[0].signed_by == ("/usr/share/keyrings/ubuntu-archive-keyring.gpg",)


def test_a_host_of_jammy(apt: Path) -> None:
    """The one-line format; a host of one release has mirrors of all."""
    (apt / "sources.list").write_text(JAMMY)

    mirrors = read_mirrors(apt, {}, UBUNTU, arch="amd64", host="amd64")

    assert found(mirrors) == (["http://archive.example/ubuntu"], ["http://security.example/ubuntu"])
    with pytest.raises(LockError, match="no Debian archive"):
        read_mirrors(apt, {})


def test_a_release_that_is_not_known_yet(apt: Path) -> None:
    """Its components tell that it is Ubuntu's."""
    (apt / "sources.list").write_text(
        "deb http://a.example/ubuntu zesty main universe\ndeb http://b.example/x y main\n"
    )

    assert found(read_mirrors(apt, {}, UBUNTU, arch="amd64", host="amd64"))[0] == ["http://a.example/ubuntu"]


def test_other_machines_have_mirrors_of_their_own(apt: Path) -> None:
    """A source is for the host's machine unless it says another; ports have all suites."""
    ports = (
        "Types: deb\nURIs: http://ports.example/ubuntu-ports\nSuites: noble noble-security\nComponents: main universe\n"
    )
    (apt / "sources.list.d/ubuntu.sources").write_text(NOBLE)
    expected = (["http://ports.example/ubuntu-ports"],) * 2

    with pytest.raises(LockError, match="no Ubuntu archive for arm64"):
        read_mirrors(apt, {}, UBUNTU, arch="arm64", host="amd64")
    (apt / "sources.list.d/ports.sources").write_text(f"{ports}Architectures: arm64\n")
    assert found(read_mirrors(apt, {}, UBUNTU, arch="arm64", host="amd64")) == expected
    assert "ports" not in str(read_mirrors(apt, {}, UBUNTU, arch="amd64", host="amd64"))
    (apt / "sources.list.d/ubuntu.sources").unlink()
    (apt / "sources.list.d/ports.sources").write_text(ports)
    assert found(read_mirrors(apt, {}, UBUNTU, arch="arm64", host="arm64")) == expected
    one_line = "deb [arch=arm64 signed-by=/k.gpg] http://ports.example/ubuntu-ports noble main\n"
    (apt / "sources.list.d/ports.sources").unlink()
    (apt / "sources.list").write_text(one_line)
    assert found(read_mirrors(apt, {}, UBUNTU, arch="arm64", host="amd64")) == expected


def test_settings_name_the_mirrors(apt: Path) -> None:
    """They go before apt's; a mirror of Ubuntu has its security suite too."""
    env = {"MLBOX_UBUNTU_MIRROR": "http://m.example/ubuntu/", "MLBOX_UBUNTU_PORTS_MIRROR": "file:///srv/ports"}
    apart = {**env, "MLBOX_UBUNTU_SECURITY_MIRROR": "http://s.example/ubuntu"}

    assert found(read_mirrors(apt, env, UBUNTU, arch="amd64")) == (["http://m.example/ubuntu"],) * 2
    assert found(read_mirrors(apt, apart, UBUNTU, arch="amd64"))[1] == ["http://s.example/ubuntu"]
    assert found(read_mirrors(apt, apart, UBUNTU, arch="arm64")) == (["file:///srv/ports"],) * 2
    (apt / "sources.list.d/ubuntu.sources").write_text(NOBLE)
    assert found(read_mirrors(apt, env, UBUNTU, arch="amd64", host="amd64")) == (
        ["http://m.example/ubuntu"],
        ["http://security.example/ubuntu"],
    )


@pytest.mark.parametrize(
    ("arch", "words"),
    [("amd64", "MLBOX_UBUNTU_MIRROR (and MLBOX_UBUNTU_SECURITY_MIRROR)"), ("arm64", "MLBOX_UBUNTU_PORTS_MIRROR")],
)
def test_without_a_mirror_the_setting_is_named(apt: Path, arch: str, words: str) -> None:
    """On a host of Debian, say."""
    (apt / "sources.list").write_text("deb http://a.example/debian bookworm main\n")

    with pytest.raises(LockError, match=f"no Ubuntu archive for {arch} is configured") as refused:
        read_mirrors(apt, {}, UBUNTU, arch=arch, host=arch)

    assert f"set {words} to the root of a mirror of Ubuntu for {arch}" in (refused.value.hint or "")


def test_where_a_locked_package_may_lie(apt: Path) -> None:
    """Below the mirrors of its own distribution, of whichever machine it is; a build needs no others."""
    env = {"MLBOX_UBUNTU_PORTS_MIRROR": "http://p", "MLBOX_DEBIAN_MIRROR": "http://d"}

    assert mirrors_of("noble-updates", apt=apt, env=env) == ["http://p"]
    both = mirrors_of("noble", apt=apt, env={**env, "MLBOX_UBUNTU_MIRROR": "http://u"})
    assert both == (["http://u", "http://p"] if host_arch() == "amd64" else ["http://p", "http://u"])
    assert mirrors_of("bookworm", apt=apt, env=env) == ["http://d"]
    with pytest.raises(LockError, match="no Ubuntu archive"):
        mirrors_of("noble", apt=apt, env={"MLBOX_DEBIAN_MIRROR": "http://d"})


@pytest.mark.parametrize(("packing", "by_hash"), [(".gz", True), (".xz", False), (".gz", False)])
def test_python_comes_from_the_release(archive: UbuntuArchive, packing: str, by_hash: bool) -> None:
    """A base of noble gets Python 3.12; the lock names the suites it is from and what the target is."""
    security = [stanza("python3.12", "3.12.3-1ubuntu0.5", Depends="libc6 (>= 2.38)")]
    archive.publish_release(PYTHON, security=security, packing=packing, by_hash=by_hash)

    locked = lock(archive, "python3")

    assert [(deb.name, deb.version, deb.suite, deb.role) for deb in locked.debs] == [
        ("python3", "3.12.3-0ubuntu2", "noble", "system"),
        ("python3.12", "3.12.3-1ubuntu0.5", "noble-security", "system"),
    ]
    assert (locked.suite, locked.python_full, locked.glibc, locked.notes) == ("noble", "3.12.3", "2.39", ())


def test_jammy_has_python_310(archive: UbuntuArchive) -> None:
    """And a package for setup code of its own, as Debian's releases of that time."""
    exact = {"Depends": "python3 (>= 3.10.6-1~), python3 (<< 3.11)"}
    python = [
        stanza("python3", "3.10.6-1~22.04", Depends="python3.10 (>= 3.10.6-1~), libc6"),
        stanza("python3.10", "3.10.12-1~22.04.9"),
        stanza("python3-distutils", "3.10.8-1~22.04", **exact),
    ]
    archive.publish_release(python, release="jammy")

    locked = lock(archive, "python3", suite="jammy", status=LIBC.replace("2.39-0ubuntu8.3", "2.35-0ubuntu3.8"))

    assert [deb.name for deb in locked.debs] == ["python3", "python3-distutils", "python3.10"]
    assert (locked.python_full, locked.glibc) == ("3.10.12", "2.35")


def test_what_the_image_has_moves_only_with_what_needs_it(archive: UbuntuArchive) -> None:
    """Ubuntu's suffixes order as dpkg orders them."""
    exact = stanza("libc6-dev", "2.39-0ubuntu8.10", Depends="libc6 (= 2.39-0ubuntu8.10)")
    archive.publish_release([stanza("libc6", "2.39-0ubuntu8")], updates=[exact, stanza("libc6", "2.39-0ubuntu8.10")])

    locked = lock(archive, "libc6-dev")

    assert {deb.name: deb.version for deb in locked.debs} == dict.fromkeys(("libc6", "libc6-dev"), "2.39-0ubuntu8.10")
    assert "libc6 2.39-0ubuntu8.3 -> 2.39-0ubuntu8.10" in locked.notes[0]


def test_universe_is_searched_too(archive: UbuntuArchive) -> None:
    """Packages of both components, by what both need."""
    archive.publish_release([*PYTHON, stanza("libmain")], [stanza("ffmpeg", "7:6.1.1-3ubuntu5", Depends="libmain")])

    assert [deb.name for deb in lock(archive, "ffmpeg").debs] == ["ffmpeg", "libmain"]
    with pytest.raises(ResolveError, match="there is no Ubuntu package ffmpg") as refused:
        lock(archive, "ffmpg")
    assert "ffmpeg" in (refused.value.hint or "")


@pytest.mark.parametrize("percentage", ["0", "10"])
def test_a_phased_update_is_taken_as_apt_takes_it(archive: UbuntuArchive, percentage: str) -> None:
    """What is not installed is installed in the newest version; what is there moves only when something needs it."""
    phased = {"Phased_Update_Percentage": percentage}
    updates = [
        stanza("tool", "1.0-1ubuntu0.1", Depends="libtool", **phased),
        stanza("libc6", "2.39-0ubuntu8.4", **phased),
    ]
    archive.publish_release([stanza("tool", "1.0-1", Depends="libtool"), stanza("libtool")], updates=updates)

    assert {deb.name: deb.version for deb in lock(archive, "tool").debs} == {
        "tool": "1.0-1ubuntu0.1",
        "libtool": "1.0-1",
    }


def test_a_lock_stays_when_an_update_comes(archive: UbuntuArchive) -> None:
    """While the archive still has what was locked."""
    archive.publish_release([stanza("tool", "1.0-1")])
    first = lock(archive, "tool")
    archive.publish_release([stanza("tool", "1.0-1")], updates=[stanza("tool", "1.0-1ubuntu0.1")])

    assert lock(archive, "tool", locked=first.debs) == first
    assert lock(archive, "tool") != first


def test_arm64_comes_from_ports(archive: UbuntuArchive) -> None:
    """Their indexes are other files; a mirror without those of a machine is named."""
    python = [one.replace("Architecture: amd64", "Architecture: arm64") for one in PYTHON]
    archive.publish_release(python, arch="arm64")

    assert {deb.arch for deb in lock(archive, "python3", arch="arm64").debs} == {"arm64"}
    with pytest.raises(LockError, match=r"Ubuntu noble at file:.* has no main/binary-amd64/Packages"):
        lock(archive, "python3")


def test_without_the_keyring_its_package_is_named(archive: UbuntuArchive) -> None:
    """Also where apt trusts keys of others, which is what a host of Debian looks like."""
    archive.publish_release(PYTHON)
    (archive.keys.keyrings / "ubuntu-archive-test.gpg").unlink()
    archive.keys.trusted.mkdir()
    for _ in range(2):
        with pytest.raises(SignatureError, match="no keyring of Ubuntu on this host") as refused:
            lock(archive, "python3")
        assert "install the package ubuntu-keyring" in (refused.value.hint or "")
        other = pysequoia.Tsk.generate("Debian Archive (test)").extract_certificate()
        (archive.keys.trusted / "debian.gpg").write_bytes(bytes(other))
        (archive.keys.keyrings / "debian-archive-test.gpg").write_bytes(bytes(other))


def test_a_key_of_debians_signs_nothing_of_ubuntus(archive: UbuntuArchive) -> None:
    """Each distribution has its own keyring."""
    archive.publish_release(PYTHON)
    other = pysequoia.Tsk.generate("Debian Archive (test)")
    (archive.keys.keyrings / "debian-archive-test.gpg").write_bytes(bytes(other.extract_certificate()))
    archive.sign("noble", "Origin: Ubuntu\nSuite: noble\nCodename: noble\n", "", by_hash=True, key=other)

    with pytest.raises(SignatureError, match="not signed by a key that this host trusts for Ubuntu") as refused:
        lock(archive, "python3")
    assert "ubuntu-keyring too old" in (refused.value.hint or "")


def test_one_suite_in_place_of_another_is_refused(archive: UbuntuArchive) -> None:
    """The codename is the same in all suites of a release: the suite's own name is compared."""
    archive.publish_release(PYTHON, updates=[stanza("tool")])
    for of, instead in (("noble", "noble-updates"), ("noble-security", "noble")):
        old = archive.release_path(of).read_bytes()
        archive.release_path(of).write_bytes(archive.release_path(instead).read_bytes())
        with pytest.raises(
            SignatureError, match=f"asked for Ubuntu {of}, but the signed file is of 'Ubuntu {instead}'"
        ):
            lock(archive, "python3")
        archive.release_path(of).write_bytes(old)


def test_the_signed_origin_counts() -> None:
    """What stands in the signed part, whoever's key signed it."""
    signed = b"Origin: UbuntuESM\nSuite: noble\nCodename: noble\n"
    with pytest.raises(SignatureError, match="asked for Ubuntu noble, but the signed file is of 'UbuntuESM noble'"):
        parse_release(signed, Mirror(root="http://u"), "noble", url="x", now=None)


def test_the_settings_are_for_the_wanted_machine(archive: UbuntuArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mirrors given, those of this host for the release's distribution and the target's machine are asked."""
    monkeypatch.setenv("MLBOX_DEBIAN_MIRROR", "file:///none")
    monkeypatch.setenv("MLBOX_UBUNTU_MIRROR", archive.url)
    monkeypatch.setenv("MLBOX_UBUNTU_SECURITY_MIRROR", archive.url)
    monkeypatch.setenv("MLBOX_UBUNTU_PORTS_MIRROR", "file:///none")
    archive.publish_release([stanza("tool")])
    cache = archive.root / "cache"
    amd64 = Asked(
        suite="noble", arch="amd64", packages=("tool",), http=FileHttp(), cache=cache, keys=archive.keys, now=NOW
    )

    assert [deb.name for deb in lock_on_base(amd64, status=b"", movable=True).debs] == ["tool"]
    with pytest.raises(FetchError, match="file:///none/dists/noble/InRelease"):
        lock_on_base(replace(amd64, arch="arm64"), status=b"", movable=True)


def test_archives_of_others_are_passed_over(archive: UbuntuArchive, tmp_path: Path) -> None:
    """A personal archive calls its suite noble too."""
    archive.publish_release(PYTHON)
    personal = UbuntuArchive(tmp_path / "ppa")
    personal.publish_release([])
    for suite in ("noble", "noble-updates", "noble-security"):
        personal.sign(suite, "Origin: LP-PPA-somebody\nSuite: noble\nCodename: noble\n", "", by_hash=True)
    both = (Mirror(root=personal.url), Mirror(root=archive.url))

    assert len(lock(archive, "python3", mirrors=Mirrors(main=both, security=both)).debs) == 2
    with pytest.raises(LockError, match="carries Ubuntu's suite noble") as refused:
        lock(archive, "python3", mirrors=Mirrors(main=both[:1], security=both[1:]))
    assert "MLBOX_UBUNTU_MIRROR" in (refused.value.hint or "")


def test_a_suite_of_nobody_is_an_error(archive: UbuntuArchive) -> None:
    """The error says for which releases there are packages."""
    with pytest.raises(LockError, match="focal") as refused:
        lock_on_base(
            Asked(suite="focal", arch="amd64", packages=("git",), http=FileHttp(), cache=archive.root / "cache"),
            status=b"",
            movable=True,
        )
    assert KNOWN in refused.value.message
    assert KNOWN == "Debian bullseye, bookworm, trixie or Ubuntu jammy, noble"


def test_a_bad_index_names_its_distribution(archive: UbuntuArchive) -> None:
    """Not Debian."""
    archive.publish_release([stanza("python3").replace("SHA256", "SHA1")])
    with pytest.raises(LockError, match="the index of Ubuntu noble describes the package python3 badly"):
        lock(archive, "python3")


def test_packages_of_a_day(archive: UbuntuArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu's old packages have a mirror of their own, with all suites of a release in one archive."""
    archive.publish_release([*PYTHON, stanza("tool")])
    with pytest.raises(LockError, match="the packages of Ubuntu are to be those of 2025-09-01") as problem:
        lock(archive, "tool", snapshot="2025-09-01")
    assert "MLBOX_UBUNTU_SNAPSHOT" in str(problem.value.hint)
    (tmp_path / "ubuntu").mkdir()
    (tmp_path / "ubuntu/20250901T000000Z").symlink_to(archive.root)
    monkeypatch.setenv("MLBOX_UBUNTU_SNAPSHOT", f"{tmp_path.as_uri()}/{{archive}}/{{timestamp}}")
    assert [deb.name for deb in lock(archive, "tool", snapshot="2025-09-01").debs] == ["tool"]
