"""Unpacking .debs: what is kept, what is changed on purpose, and what is refused."""

import hashlib
import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.debian import Member, ar_of, deb_bytes, directory, symlink, tar_of, write_deb
from fakes.tars import header
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbox.build.deb import left_out, merged, unpack_deb
from mlbox.errors import ArchiveError
from mlbox.oci.layer import EPOCH
from mlbox.store.tree import Tree, below, diff_id_of

INFO = "var/lib/dpkg/info"


def unpack(tmp_path: Path, *members: Member, **more: object) -> tuple[Path, Tree]:
    root = tmp_path / "root"
    return root, unpack_deb(write_deb(tmp_path / "thing.deb", members, **more), root, epoch=EPOCH)


def own(tree: Tree) -> dict[str, str]:
    """Return kind (or target) of what came from the data part."""
    return {e.path: e.target or e.kind for e in tree.entries if not e.path.startswith("var")}


@pytest.mark.parametrize("packing", ["", ".gz", ".xz", ".zst"])
def test_every_compression_gives_the_same_tree(tmp_path: Path, packing: str) -> None:
    root, tree = unpack(tmp_path, directory("./etc/"), Member("./etc/thing", b"x" * 3_000_000), packing=packing)
    assert own(tree) == {"etc": "dir", "etc/thing": "file"}
    assert (root / "etc/thing").read_bytes() == b"x" * 3_000_000
    assert {(e.uid, e.gid, e.mtime) for e in tree.entries} == {(0, 0, EPOCH)}


def test_modes_are_normalised(tmp_path: Path) -> None:
    root, tree = unpack(
        tmp_path,
        Member("./usr/bin/su", mode=0o4755),
        Member("./etc/secret", mode=0o600),
        Member("./usr/bin/x", mode=0o711),
    )
    modes = {e.path: e.mode for e in tree.entries if e.kind == "file"}
    assert (modes["usr/bin/su"], modes["etc/secret"], modes["usr/bin/x"]) == (0o755, 0o644, 0o755)
    assert stat.S_IMODE((root / "usr/bin/su").stat().st_mode) == 0o755


def test_usr_is_merged(tmp_path: Path) -> None:
    _, tree = unpack(
        tmp_path,
        directory("./bin/"),
        Member("./bin/touch", mode=0o755),
        symlink("./usr/bin/touch", "/bin/touch"),
        symlink("./lib64/ld-linux.so.2", "/lib/ld-2.so"),
        symlink("./lib/a/plugin.so", "../../usr/share/plugin.so"),
        symlink("./lib/a/near.so", "far.so"),
        symlink("./sbin", "usr/sbin"),
    )
    assert own(tree) == {
        "usr": "dir",
        "usr/bin": "dir",
        "usr/bin/touch": "file",
        "usr/lib": "dir",
        "usr/lib/a": "dir",
        "usr/lib/a/near.so": "far.so",
        "usr/lib/a/plugin.so": "../../share/plugin.so",
        "usr/lib64": "dir",
        "usr/lib64/ld-linux.so.2": "/lib/ld-2.so",
    }


def test_hard_links_become_relative_symlinks(tmp_path: Path) -> None:
    root, tree = unpack(
        tmp_path,
        Member("./bin/perl", b"perl", 0o755),
        Member("./usr/lib/x/perl5", kind=tarfile.LNKTYPE, target="./bin/perl"),
    )
    assert own(tree)["usr/lib/x/perl5"] == "../../bin/perl"
    assert (root / "usr/lib/x/perl5").read_bytes() == b"perl"


def test_documentation_is_left_out_but_not_licences(tmp_path: Path) -> None:
    _, tree = unpack(
        tmp_path,
        directory("./usr/share/doc/thing/"),
        Member("./usr/share/doc/thing/copyright"),
        Member("./usr/share/doc/thing/changelog.gz"),
        symlink("./usr/share/doc/other", "thing"),
        Member("./usr/share/man/man1/thing.1.gz"),
        Member("./usr/share/locale/de/LC_MESSAGES/thing.mo"),
        Member("./usr/share/locale/locale.alias"),
    )
    assert [e.path for e in tree.entries if e.kind != "dir" and e.path.startswith("usr")] == [
        "usr/share/doc/other",
        "usr/share/doc/thing/copyright",
        "usr/share/locale/locale.alias",
    ]
    listing = (tmp_path / "root" / INFO / "thing.list").read_text().splitlines()
    assert "/usr/share/man/man1/thing.1.gz" in listing  # dpkg still knows whose it was


def test_dpkg_finds_what_it_needs(tmp_path: Path) -> None:
    root, _ = unpack(
        tmp_path,
        Member("./etc/thing.conf", b"a=1\n"),
        name="libthing",
        fields={"Multi-Arch": "same"},
        control=[Member("./conffiles", b"/etc/thing.conf\n/etc/gone\n"), Member("./postinst", b"#!/bin/sh\n", 0o755)],
    )
    info = root / INFO
    assert sorted(path.name for path in info.iterdir()) == [
        f"libthing:amd64.{kind}" for kind in ("conffiles", "control", "list", "postinst")
    ]
    assert os.access(info / "libthing:amd64.postinst", os.X_OK)
    assert (info / "libthing:amd64.list").read_text() == "/.\n/etc/thing.conf\n"
    text = (info / "libthing:amd64.control").read_text()
    assert text.startswith("Package: libthing\nStatus: install ok installed\nVersion: 1.0-1\n")
    digest = hashlib.md5(b"a=1\n").hexdigest()
    assert text.endswith(f"Conffiles:\n /etc/thing.conf {digest}\n")
    assert "/etc/gone" not in text


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Member("./../evil"), "leaves the archive"),
        (Member("/etc/passwd"), "leaves the archive"),
        (Member("./bin/../../evil"), "leaves the archive"),
        (Member("./dev/null", kind=tarfile.CHRTYPE), "device"),
        (Member("./dev/sda", kind=tarfile.BLKTYPE), "device"),
        (Member("./run/pipe", kind=tarfile.FIFOTYPE), "fifo"),
        (Member("./a", kind=tarfile.LNKTYPE, target="/etc/shadow"), "hard link"),
        (Member("./a", kind=tarfile.LNKTYPE, target="./nothing"), "hard link"),
        (symlink("./bin", "/tmp"), "not to its place"),
        (Member("./etc/" + "x" * 300), "not a whole"),
    ],
)
def test_hostile_members_are_refused(tmp_path: Path, member: Member, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        unpack(tmp_path, member)
    assert not (tmp_path / "evil").exists()


def test_nothing_is_written_through_a_symlink(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no directory"):
        unpack(tmp_path, symlink("./etc/out", str(tmp_path)), Member("./etc/out/evil"))
    assert not (tmp_path / "evil").exists()


def test_the_same_path_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="two members"):
        unpack(tmp_path, Member("./bin/x"), Member("./usr/bin/x"))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    deb = write_deb(tmp_path / "bomb.deb", [Member("./etc/zeros", bytes(5_000_000))])
    with pytest.raises(ArchiveError, match="more than the limit"):
        unpack_deb(deb, tmp_path / "root", epoch=EPOCH, limit=1_000_000)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_is_never_read_whole(tmp_path: Path, kind: bytes) -> None:
    """A name of gigabytes, packed into kilobytes, would fill the memory."""
    control = tar_of([Member("./control", b"Package: xx\nArchitecture: all\n")])
    parts = [("debian-binary", b"2.0\n"), ("control.tar", control), ("data.tar", header("x", kind, 1 << 30))]
    (tmp_path / "bomb.deb").write_bytes(ar_of(parts))
    with pytest.raises(ArchiveError, match=r"a header of 1073741824 bytes|headers without an end"):
        unpack_deb(tmp_path / "bomb.deb", tmp_path / "root", epoch=EPOCH)


GOOD = deb_bytes([Member("./etc/thing", b"some content\n" * 99)])
CONTROL = tar_of([Member("./control", b"Package: xx\nArchitecture: all\n")])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an ar archive"),
        (b"!<arch>\n", "debian-binary is missing"),
        (ar_of([("debian-binary", b"2.0\n")]), "control.tar is missing"),
        (ar_of([("debian-binary", b"2.0\n"), ("control.tar", CONTROL)]), "data.tar is missing"),
        (ar_of([("debian-binary", b"2.0\n"), ("control.tar.lz4", b"")]), "found 'control.tar.lz4'"),
        (ar_of([("debian-binary", b"2.0\n"), ("control.tar", tar_of([]))]), "names no package"),
        (GOOD.replace(b"`\n", b"??"), "damaged ar header"),
        (GOOD[:-100], "not a whole Debian package"),
        (GOOD.replace(b"data.tar.xz     ", b"data.tar.gz     "), "not a whole Debian package"),
    ],
)
def test_damaged_packages_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.deb"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=message) as problem:
        unpack_deb(path, tmp_path / "root", epoch=EPOCH)
    assert "bad.deb" in problem.value.message


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_no_damage_escapes_as_another_error(tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes) -> None:
    tmp_path = tmp_path_factory.mktemp("deb")
    path = tmp_path / "bad.deb"
    path.write_bytes(GOOD[:at] + junk + GOOD[at + len(junk) :])
    with suppress(ArchiveError):
        unpack_deb(path, tmp_path / "root", epoch=EPOCH)


def test_the_result_does_not_depend_on_umask_or_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = write_deb(tmp_path / "thing.deb", [Member("./etc/a", b"1"), Member("./usr/bin/b", b"2", 0o755)])
    found = set()
    for number, (mask, zone) in enumerate([(0o022, "UTC"), (0o077, "Pacific/Auckland")]):
        monkeypatch.setenv("TZ", zone)
        before = os.umask(mask)
        try:
            root = tmp_path / str(number)
            found.add(diff_id_of(unpack_deb(deb, root, epoch=EPOCH).entries, below(root)))
        finally:
            os.umask(before)
    assert len(found) == 1


def test_paths_are_judged_by_whole_parts() -> None:
    assert merged("library/x") == "library/x"
    assert merged("lib/x") == "usr/lib/x"
    assert not left_out("usr/share/mandatory")
    assert not left_out("usr/share/doc")
    assert left_out("usr/share/doc/x/examples/copyright")
