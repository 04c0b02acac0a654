"""What maintainer scripts would have made, made without them."""

import os
import subprocess
from pathlib import Path

import pytest
from fakes.debian import Member, symlink, write_deb
from fakes.elf import shared_library

from mlbox.build.accounts import pam_files
from mlbox.build.certs import subject_hash
from mlbox.build.deb import unpack_deb
from mlbox.build.maintainer import choices
from mlbox.build.rootfs import fill_rootfs, needs_configure
from mlbox.build.union import Union
from mlbox.oci.layer import EPOCH
from mlbox.store.tree import Tree, TreeWriter, below, diff_id_of

PASSWD = b"root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUP = b"root:*:0:\nshadow:*:42:\n"
UNIX = b"""Name: Unix
Default: yes
Priority: 256
Auth-Type: Primary
Auth:
\t[success=end default=ignore]\tpam_unix.so try_first_pass
Auth-Initial:
\t[success=end default=ignore]\tpam_unix.so
Session-Type: Additional
Session:
\trequired\tpam_unix.so
"""
OTHER = b"""Name: Other
Default: yes
Priority: 10
Session-Interactive-Only: yes
Auth-Type: Primary
Auth:
\t[success=end]\tpam_other.so first
Session-Type: Additional
Session:
\toptional\tpam_other.so
"""
MAWK = b"""#!/bin/sh
set -e
# Automatically added by dh_installalternatives/13.7.1
if [ "$1" = "configure" ]; then
        update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\
            --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz \\
            --slave /usr/bin/nawk nawk /usr/bin/mawk
fi
# End automatically added section
"""
GAWK = b"#!/bin/sh\nupdate-alternatives --quiet --install /usr/bin/awk awk /usr/bin/gawk 10 || true\n"


def postinst(text: bytes) -> Member:
    return Member("./postinst", text, 0o755)


@pytest.fixture
def trees(tmp_path: Path) -> list[tuple[Path, Tree]]:
    packages: dict[str, tuple[list[Member], list[Member]]] = {
        "base-passwd": ([Member("./usr/share/base-passwd/passwd.master", PASSWD),
                         Member("./usr/share/base-passwd/group.master", GROUP)], []),
        "base-files": ([Member("./usr/share/base-files/profile", b"# profile\n"), Member("./etc/motd", b"own\n"),
                        Member("./usr/share/base-files/motd", b"default\n")], [postinst(b"do something\n")]),
        "mawk": ([Member("./usr/bin/mawk", mode=0o755)], [postinst(MAWK)]),
        "gawk": ([Member("./usr/bin/gawk", mode=0o755)], [postinst(GAWK)]),
        "dash": ([Member("./bin/dash", mode=0o755)], []),
        "libc-bin": ([Member("./etc/ld.so.conf", b"/usr/lib/x86_64-linux-gnu\n")],
                     [Member("./triggers", b"interest-noawait ldconfig\ninterest /usr/lib/locale\n")]),
        "libx": ([Member("./usr/lib/x86_64-linux-gnu/libx.so.1.0", shared_library("libx.so.1")),
                  symlink("./usr/lib/x86_64-linux-gnu/libx.so", "libx.so.1")], []),
        "tzdata": ([Member("./usr/share/zoneinfo/Etc/UTC", b"TZif")], []),
    }  # fmt: skip
    found = []
    for name, (data, control) in packages.items():
        deb = write_deb(tmp_path / f"{name}.deb", data, name=name, control=control)
        found.append((tmp_path / name, unpack_deb(deb, tmp_path / name, epoch=EPOCH)))
    return found


def fill(trees: list[tuple[Path, Tree]], root: Path) -> Tree:
    return fill_rootfs(root, trees, suite="bookworm", arch="amd64", epoch=EPOCH)


def test_a_working_system_has_these(trees: list[tuple[Path, Tree]], tmp_path: Path) -> None:
    root = tmp_path / "root"
    entries = {entry.path: entry for entry in fill(trees, root).entries}
    assert {name: entries[name].target for name in ("bin", "sbin", "lib", "lib64")} == {
        name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")
    }
    assert (entries["tmp"].mode, entries["root"].mode, entries["etc/shadow"].mode) == (0o1777, 0o700, 0o640)
    assert (root / "etc/passwd").read_text().splitlines() == [
        "root:x:0:0:root:/root:/bin/bash",
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
        "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin",
    ]
    assert (root / "etc/group").read_text() == "root:x:0:\nshadow:x:42:\n"
    assert (root / "etc/shadow").read_text().startswith("root:*:3652:0:99999:7:::\n")
    assert (root / "etc/profile").read_text() == "# profile\n"
    assert "etc/motd" not in entries  # a package's own file is never replaced
    assert entries["etc/localtime"].target == "/usr/share/zoneinfo/Etc/UTC"
    assert entries["usr/bin/sh"].target == "dash"
    assert entries["usr/lib/x86_64-linux-gnu/libx.so.1"].target == "libx.so.1.0"
    assert b"/usr/lib/x86_64-linux-gnu/libx.so.1\0" in (root / "etc/ld.so.cache").read_bytes()


def test_dpkgs_records(trees: list[tuple[Path, Tree]], tmp_path: Path) -> None:
    root = tmp_path / "root"
    fill(trees, root)
    dpkg = root / "var/lib/dpkg"
    stanzas = (dpkg / "status").read_text().split("\n\n")
    assert [stanza.splitlines()[:2] for stanza in stanzas[:2]] == [
        ["Package: base-files", "Status: install ok installed"],
        ["Package: base-passwd", "Status: install ok installed"],
    ]
    assert (dpkg / "triggers/ldconfig").read_text() == "libc-bin/noawait\n"
    assert (dpkg / "triggers/File").read_text() == "/usr/lib/locale libc-bin\n"
    assert (dpkg / "info/format").read_text() == "1\n"


def test_alternatives(trees: list[tuple[Path, Tree]], tmp_path: Path) -> None:
    root = tmp_path / "root"
    targets = {entry.path: entry.target for entry in fill(trees, root).entries}
    assert targets["usr/bin/awk"] == "/etc/alternatives/awk"
    assert targets["etc/alternatives/awk"] == "/usr/bin/gawk"
    assert "usr/bin/nawk" not in targets  # gawk, which won, brings none
    record = (root / "var/lib/dpkg/alternatives/awk").read_text()
    assert (
        record == "auto\n/usr/bin/awk\nnawk\n/usr/bin/nawk\n\n/usr/bin/gawk\n10\n\n/usr/bin/mawk\n5\n/usr/bin/mawk\n\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "update-alternatives --install /usr/bin/$x $x /usr/bin/y 10",
        "update-alternatives --install /usr/bin/x ../../x /usr/bin/y 10",
        "update-alternatives --install usr/bin/x x /usr/bin/y 10",
        "update-alternatives --install /usr/bin/x x /usr/bin/y",
        "update-alternatives --install /usr/bin/x x /usr/bin/y high",
        "update-alternatives --install '/usr/bin/x",
        "update-alternatives --remove x /usr/bin/x",
    ],
)
def test_what_is_not_written_out_is_no_alternative(line: str) -> None:
    assert list(choices(line)) == []


def test_the_same_debs_give_the_same_piece(
    trees: list[tuple[Path, Tree]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for number, (mask, zone) in enumerate([(0o022, "UTC"), (0o077, "Asia/Tokyo")]):
        monkeypatch.setenv("TZ", zone)
        before = os.umask(mask)
        try:
            root = tmp_path / f"root{number}"
            found.add(diff_id_of(fill(trees[:: 1 if number else -1], root).entries, below(root)))
        finally:
            os.umask(before)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("script", "needed"),
    [
        (b"#!/bin/sh\nset -e\n\nexit 0\n", False),
        (MAWK, False),
        (GAWK, False),
        (
            b"#!/bin/sh\n# Automatically added by dh_python3\npy3compile -p x\n# End automatically added section\n",
            False,
        ),
        (b"#!/bin/sh\n# Automatically added by dh_ucf/13\nucf /a /b\n# End automatically added section\n", True),
        (b'#!/bin/sh\nif [ "$1" = configure ]; then\n  update-mime-database /usr/share/mime\nfi\n', True),
        (b"#!/bin/sh\nadduser --system thing\n", True),
    ],
)
def test_packages_that_need_their_scripts_are_named(tmp_path: Path, script: bytes, needed: bool) -> None:
    deb = write_deb(tmp_path / "a.deb", [], name="somepackage", control=[postinst(script)])
    tree = unpack_deb(deb, tmp_path / "a", epoch=EPOCH)
    assert needs_configure([(tmp_path / "a", tree)]) == (["somepackage"] if needed else [])


def test_known_scripts_and_empty_folders_need_nothing(trees: list[tuple[Path, Tree]], tmp_path: Path) -> None:
    assert needs_configure(trees) == []
    compiles = [postinst(b"glib-compile-schemas /usr/share/glib-2.0/schemas\n")]
    for number, data in enumerate(([], [Member("./usr/share/glib-2.0/schemas/a.gschema.xml")])):
        deb = write_deb(tmp_path / "g.deb", data, name="libglib2.0-0", control=compiles)
        tree = unpack_deb(deb, tmp_path / f"g{number}", epoch=EPOCH)
        assert needs_configure([(tmp_path / f"g{number}", tree)]) == (["libglib2.0-0"] if data else [])


def plain(root: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Union:
    writer = TreeWriter(root, "test")
    for path, data in files.items():
        writer.file(path, [data])
    for path, target in (links or {}).items():
        writer.symlink(path, target)
    return Union([(root, writer.finish())])


def test_pam_stacks_count_their_jumps(tmp_path: Path) -> None:
    template = "$auth_primary\nauth requisite pam_deny.so\n$auth_additional\n"
    session = "$session_nonint_primary\n$session_nonint_additional\n"
    union = plain(
        tmp_path / "t",
        {
            "usr/share/pam/common-auth": template.encode(),
            "usr/share/pam/common-session-noninteractive": session.encode(),
            "usr/share/pam-configs/unix": UNIX,
            "usr/share/pam-configs/other": OTHER,
            "usr/share/pam-configs/off": OTHER.replace(b"Default: yes", b"Default: no"),
        },
    )
    made = {path: data.decode() for path, data in pam_files(union).items()}
    assert made["etc/pam.d/common-auth"] == (
        "auth\t[success=2 default=ignore]\tpam_unix.so\nauth\t[success=1]\tpam_other.so first\n"
        "auth requisite pam_deny.so\n\n"
    )
    assert made["etc/pam.d/common-session-noninteractive"] == (
        "session\t[default=1]\tpam_permit.so\nsession\trequired\tpam_unix.so\n"
    )


def test_symlinks_are_followed_inside_the_root(tmp_path: Path) -> None:
    union = plain(
        tmp_path / "t",
        {"usr/bin/real": b"x"},
        {
            "bin": "usr/bin",
            "etc/a": "/bin/real",
            "etc/up": "../../../../bin/real",
            "etc/loop": "loop",
            "etc/gone": "/no",
        },
    )
    assert union.resolve("etc/a") == union.resolve("etc/up") == union.resolve("/bin/real") == "usr/bin/real"
    assert union.resolve("etc/loop") is None
    assert union.read("etc/gone") is None
    assert union.read("etc/a") == b"x"


def test_certificates_are_found_as_openssl_finds_them(tmp_path: Path, need: object) -> None:
    for number, subject in enumerate(
        [
            "/C=DE/O=  Some   Org /CN=Root R1",
            "/C=US/O=\u00c5ngstr\u00f6m/OU=X/CN=\u00c9cole",
            "/CN=plain/emailAddress=a@B.example",
        ]
    ):
        path = tmp_path / f"{number}.pem"
        run = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:1024",
            "-nodes",
            "-keyout",
            "/dev/null",
            "-utf8",
            "-subj",
            subject,
        ]
        need("openssl")  # type: ignore[operator]
        subprocess.run([*run, "-out", str(path)], check=True, capture_output=True)
        wanted = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", str(path)], check=True, capture_output=True
        )
        assert subject_hash(path.read_bytes()) == wanted.stdout.decode().strip()
    assert subject_hash(b"no certificate") is None
    assert subject_hash(b"-----BEGIN CERTIFICATE-----\nMAIBAA==\n-----END CERTIFICATE-----") is None
