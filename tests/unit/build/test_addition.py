"""Debian packages on top of an image: only what they have a part in is written again."""

from pathlib import Path

import pytest
from fakes.debian import Member, directory, symlink, write_deb
from fakes.elf import shared_library
from fakes.trees import Files, write

from mlbox.build.addition import fill_addition
from mlbox.build.deb import unpack_deb
from mlbox.build.union import Union
from mlbox.errors import BuildError
from mlbox.oci.layer import EPOCH, Entry
from mlbox.store.tree import Tree, below, diff_id_of

LIB = "usr/lib/x86_64-linux-gnu"
STATUS = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-9

Package: old
Status: install ok installed
Architecture: amd64
Version: 1
"""
BASE: Files = {
    "lib": "usr/lib",
    "bin": "usr/bin",
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
    "etc/hosts": b"theirs\n",
    "etc/ssl/certs/ca-certificates.crt": b"theirs\n",
    "usr/bin/vim": b"vim",
    "var/lib/dpkg/status": STATUS,
    "var/lib/dpkg/info/vim.postinst": b"update-alternatives --install /usr/bin/pager pager /usr/bin/vim 5\n",
    "var/lib/dpkg/info/libc-bin.triggers": b"interest-noawait ldconfig\n",
    f"{LIB}/libold.so.1": b"",
}


def added(tmp_path: Path, *debs: Path, base: Files = BASE, **more: Files) -> tuple[Path, dict[str, Entry]]:
    """Unpack `debs`, add them to an image of `base` and more layers, and return what is written."""
    layers = [(tmp_path / name, write(tmp_path / name, files)) for name, files in {"base": base, **more}.items()]
    trees = [(tmp_path / f"x-{deb.name}", unpack_deb(deb, tmp_path / f"x-{deb.name}", epoch=EPOCH)) for deb in debs]
    out = tmp_path / "out"
    tree = fill_addition(out, layers, trees, arch="amd64", epoch=EPOCH)
    assert diff_id_of(tree.entries, below(out))
    return out, {entry.path: entry for entry in tree.entries}


def test_dpkg_knows_both(tmp_path: Path) -> None:
    """The image's packages stay where they are, an upgraded one is replaced in its place, new ones follow."""
    new = write_deb(tmp_path / "new.deb", [Member("./usr/bin/new", b"x", 0o755)], name="new")
    old = write_deb(tmp_path / "old.deb", [Member("./usr/bin/old", b"x", 0o755)], name="old", fields={"Version": "2"})

    out, entries = added(tmp_path, new, old)

    text = (out / "var/lib/dpkg/status").read_text()
    stanzas = [dict(line.split(": ", 1) for line in part.splitlines()) for part in text.strip().split("\n\n")]
    assert [(one["Package"], one["Architecture"], one["Version"]) for one in stanzas] == [
        ("libc6", "amd64", "2.36-9"),
        ("libc6", "i386", "2.36-9"),
        ("old", "amd64", "2"),
        ("new", "amd64", "1.0-1"),
    ]
    assert {one["Status"] for one in stanzas} == {"install ok installed"}
    assert text.endswith("\n\n")
    # What the image's makers did is left alone.
    assert not {"etc/passwd", "etc/hosts", "etc/ssl/certs/ca-certificates.crt", "tmp", "root"} & entries.keys()


def test_the_loader_knows_both(tmp_path: Path) -> None:
    """The cache has the libraries of the image, below other folders too, and those that are added."""
    theirs = {
        f"{LIB}/libtheirs.so.1": shared_library("libtheirs.so.1"),
        "etc/ld.so.conf": b"/opt/lib\n/" + LIB.encode(),
    }
    local: Files = {"opt/lib/liblocal.so.2.1": shared_library("liblocal.so.2")}
    new = write_deb(tmp_path / "n.deb", [Member(f"./{LIB}/libnew.so.3", shared_library("libnew.so.3"))], name="libnew3")

    out, entries = added(tmp_path, new, base={**BASE, **theirs}, local=local)

    cache = (out / "etc/ld.so.cache").read_bytes()
    assert all(name in cache for name in (b"/libtheirs.so.1\0", b"/opt/lib/liblocal.so.2\0", b"/libnew.so.3\0"))
    assert entries["opt/lib/liblocal.so.2"].target == "liblocal.so.2.1"


def test_only_alternatives_with_a_new_choice(tmp_path: Path) -> None:
    """A new package's choice competes with the image's; alternatives of the image alone are not touched."""
    other: Files = {
        "usr/bin/mawk": b"",
        "var/lib/dpkg/info/mawk.postinst": b"update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5\n",
    }
    script = Member("./postinst", b"update-alternatives --install /usr/bin/pager pager /usr/bin/less 77\n", 0o755)
    less = write_deb(tmp_path / "less.deb", [Member("./usr/bin/less", b"x", 0o755)], name="less", control=[script])

    out, entries = added(tmp_path, less, base={**BASE, **other})

    assert entries["etc/alternatives/pager"].target == "/usr/bin/less"
    assert b"/usr/bin/vim\n5\n" in (out / "var/lib/dpkg/alternatives/pager").read_bytes()
    assert "etc/alternatives/awk" not in entries


def test_triggers_of_both(tmp_path: Path) -> None:
    """dpkg's table of triggers names the image's packages and the new one."""
    triggers = Member("./triggers", b"interest-noawait /usr/share/fonts\n")
    fonts = write_deb(tmp_path / "f.deb", [], name="fontconfig", control=[triggers])

    out, _ = added(tmp_path, fonts)

    assert (out / "var/lib/dpkg/triggers/ldconfig").read_text() == "libc-bin/noawait\n"
    assert (out / "var/lib/dpkg/triggers/File").read_text() == "/usr/share/fonts fontconfig/noawait\n"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"usr/share/thing": "/elsewhere"}, directory("./usr/share/thing")),
        ({"usr/share/thing": 0o755}, symlink("./usr/share/thing", "x")),
    ],
)
def test_a_folder_hides_no_link(tmp_path: Path, theirs: Files, ours: Member) -> None:
    """Laid over a symlink, a package's folder would hide what is behind it: refused, naming the path."""
    deb = write_deb(tmp_path / "t.deb", [ours], name="thing")

    with pytest.raises(BuildError, match="/usr/share/thing"):
        added(tmp_path, deb, base={**BASE, **theirs})


def test_equal_input_makes_equal_output(tmp_path: Path) -> None:
    """Nothing but the packages and the layers decides."""
    deb = write_deb(tmp_path / "n.deb", [Member(f"./{LIB}/libn.so.3", shared_library("libn.so.3"))], name="libn")
    ids = []
    for name in ("one", "two"):
        out, entries = added(tmp_path / name, deb)
        ids.append(diff_id_of(tuple(entries.values()), below(out)))

    assert ids[0] == ids[1]


def layer(root: Path, *entries: Entry) -> tuple[Path, Tree]:
    """Return a layer that needs no files."""
    return root, Tree(entries=entries)


def test_layers_as_a_container_sees_them(tmp_path: Path) -> None:
    """What an upper layer removes, empties or replaces is gone with all that was below it; the rest shows through."""
    low = [Entry(path, "dir", 0o755) for path in ("a", "a/b", "c", "d", "e")]
    low += [Entry(path, "file", 0o644) for path in ("a/b/x", "a/y", "c/x", "d/x", "ab", "e/x")]
    high = [
        Entry("a/b", "whiteout", 0),
        Entry("c", "dir", 0o755, opaque=True),
        Entry("c/new", "file", 0o644),
        Entry("d", "symlink", 0o777, target="e"),
        Entry("e", "dir", 0o700),
        Entry("e/l", "link", 0o644, target="c/new"),
    ]

    union = Union.of_layers([layer(tmp_path / "low", *low), layer(tmp_path / "high", *high)])

    assert sorted(union.paths()) == ["a", "a/y", "ab", "c", "c/new", "d", "e", "e/l", "e/x"]
    assert union.resolve("d/x") == "e/x"
    assert union.on_disk("d/l") == tmp_path / "high/e/l"
    assert union.on_disk("a/b/x") is None
