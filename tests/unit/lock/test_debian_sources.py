"""Reading the host's apt configuration."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import LockError
from mlbox.lock.debian.sources import Mirror, read_mirrors, read_sources, stanzas, suite_for_python


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def roots(mirrors: tuple[Mirror, ...]) -> list[str]:
    return [mirror.root for mirror in mirrors]


def test_one_line_format(apt: Path) -> None:
    (apt / "sources.list").write_text(
        "# a comment\n"
        "deb http://one.example/debian/ bookworm main contrib # the end\n"
        "deb [ arch=amd64,arm64 signed-by=/k/a.gpg ] https://two.example/debian bookworm-updates main\n"
        "deb http://one.example/debian-security bookworm-security main\n"
        "deb-src http://source.example/debian bookworm main\n"
        "deb cdrom:[Debian]/ bookworm main\n"
        "deb http://flat.example/ ./\n"
        "nonsense\n"
    )
    mirrors = read_mirrors(apt, {})
    assert mirrors.main == (
        Mirror(root="http://one.example/debian"),
        Mirror(root="https://two.example/debian", signed_by=("/k/a.gpg",)),
    )
    assert roots(mirrors.security) == ["http://one.example/debian-security"]


def test_deb822_format(apt: Path) -> None:
    (apt / "sources.list.d" / "debian.sources").write_text(
        "# head\nTypes: deb deb-src\nURIs: http://a.example/debian\n  http://b.example/debian/\n"
        "Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k/debian.gpg\n\n"
        "Types: deb\n# inside\nURIs: http://a.example/debian-security\nSuites: bookworm-security\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc=\n -----END PGP PUBLIC KEY BLOCK-----\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n"
    )
    (apt / "sources.list.d" / "old.list.disabled").write_text("deb http://off.example/debian bookworm main\n")
    mirrors = read_mirrors(apt, {})
    assert roots(mirrors.main) == ["http://a.example/debian", "http://b.example/debian"]
    assert mirrors.main[0].signed_by == ("/k/debian.gpg",)
    (key,) = mirrors.security[0].signed_by
    assert key.splitlines() == [
        "-----BEGIN PGP PUBLIC KEY BLOCK-----",
        "",
        "abc=",
        "-----END PGP PUBLIC KEY BLOCK-----",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "deb http://x.example/linux bookworm stable",  # a suite called like Debian's, without 'main'
        "deb http://x.example/pgdg bookworm-pgdg main",
        "deb http://x.example/node nodistro main",
        "deb http://x.example/ubuntu jammy main",
    ],
)
def test_sources_of_others_are_ignored(apt: Path, line: str) -> None:
    (apt / "sources.list").write_text(line + "\n")
    with pytest.raises(LockError, match="no Debian archive") as problem:
        read_mirrors(apt, {})
    assert "MLBOX_DEBIAN_MIRROR" in (problem.value.hint or "")


def test_a_mirror_of_debian_has_all_machines(apt: Path) -> None:
    (apt / "sources.list").write_text("deb [arch=amd64] http://m.example/debian bookworm main\n")
    assert roots(read_mirrors(apt, {}, arch="arm64", host="amd64").main) == ["http://m.example/debian"]


def test_a_mirror_list_in_a_file(apt: Path) -> None:
    (apt / "mirrors").mkdir()
    (apt / "mirrors" / "debian.list").write_text(
        "http://m1.example/debian\tpriority:1\n# no\nhttp://m2.example/debian\n"
    )
    (apt / "sources.list").write_text("deb mirror+file:/etc/apt/mirrors/debian.list bookworm main\n")
    assert roots(read_mirrors(apt, {}).main) == ["http://m1.example/debian", "http://m2.example/debian"]


def test_settings_go_before_apt(apt: Path) -> None:
    (apt / "sources.list").write_text(
        "deb http://a.example/debian bookworm main\ndeb http://a.example/sec bookworm-security main\n"
    )
    mirrors = read_mirrors(apt, {"MLBOX_DEBIAN_MIRROR": "http://s.example/debian/ file:///srv/debian"})
    assert roots(mirrors.main) == ["http://s.example/debian", "file:///srv/debian"]
    assert roots(mirrors.security) == ["http://a.example/sec"]
    only = read_mirrors(apt / "none", {"MLBOX_DEBIAN_MIRROR": "http://s.example/debian"})
    assert only.security == ()


def test_roots_puts_the_suites_own_mirrors_first(apt: Path) -> None:
    mirrors = read_mirrors(apt, {"MLBOX_DEBIAN_MIRROR": "http://m", "MLBOX_DEBIAN_SECURITY_MIRROR": "http://s"})
    assert mirrors.roots("bookworm-security") == ["http://s", "http://m"]
    assert mirrors.roots("bookworm-updates") == ["http://m", "http://s"]


@given(st.text(alphabet="Types:deb \n#URIs\t.=[]abc", max_size=300))
def test_no_text_breaks_the_stanza_reader(text: str) -> None:
    for fields in stanzas(text):
        assert fields


def test_unreadable_bytes_are_no_sources(apt: Path) -> None:
    (apt / "sources.list").write_bytes(b"\xff\xfe\x00deb")
    assert read_sources(apt) == []


def test_suite_for_python() -> None:
    assert suite_for_python("3.11") == "bookworm"
    assert suite_for_python("3.13.5") == "trixie"
    with pytest.raises(LockError, match=r"3\.12.*3\.9 \(Debian bullseye\)") as problem:
        suite_for_python("3.12")
    assert "base" in (problem.value.hint or "")


@pytest.mark.parametrize(("python", "near"), [("3.8", "3.9"), ("3.10", "3.11"), ("3.12.4", "3.13"), ("3.15", "3.13")])
def test_the_python_that_is_proposed_is_the_next_one(python: str, near: str) -> None:
    with pytest.raises(LockError) as problem:
        suite_for_python(python)
    assert f'python = "{near}"' in (problem.value.hint or "")
