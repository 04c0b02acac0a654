"""A whole Debian, locked from the host's own mirror, unpacked without running a script, and put to work."""

import os
import shlex
import stat
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import missing

from mlbox.build.deb import left_out, merged, unpack_deb
from mlbox.build.rootfs import fill_rootfs, needs_configure
from mlbox.errors import FetchError, LockError
from mlbox.http import Http
from mlbox.lock.debian import Asked, DebianLock, lock_debian, mirrors
from mlbox.lock.debian.sources import RELEASES, read_mirrors
from mlbox.lock.model import Deb
from mlbox.oci.layer import EPOCH
from mlbox.store.tree import Tree, below, diff_id_of

pytestmark = pytest.mark.integration

WANTED = ("ffmpeg", "git", "libgl1")
SUITE = "bookworm"
Trees = list[tuple[Path, Tree]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metadata")


@pytest.fixture(scope="module")
def locked(cache: Path) -> DebianLock:
    try:
        return lock(cache, WANTED)
    except (FetchError, LockError) as problem:
        missing(f"no Debian mirror: {problem}")
        raise


@pytest.fixture(scope="module")
def trees(locked: DebianLock, tmp_path_factory: pytest.TempPathFactory) -> Trees:
    folder = tmp_path_factory.mktemp("debs")
    http = Http()

    def unpacked(deb: Deb) -> tuple[Path, Tree]:
        path, root = folder / f"{deb.name}.deb", folder / deb.name
        roots = [f"{mirror}/{deb.path}" for mirror in mirrors(deb)]
        http.download(roots, path, sha256=deb.sha256, size=deb.size)
        return root, unpack_deb(path, root, epoch=EPOCH)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(unpacked, locked.debs))


@pytest.fixture(scope="module")
def system(trees: Trees, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a whole root file system, all hard links."""
    folder = tmp_path_factory.mktemp("system")
    piece = folder / "piece"
    every = [*trees, (piece, fill_rootfs(piece, trees, suite=SUITE, arch="amd64", epoch=EPOCH))]
    root = folder / "root"
    union(every, root)
    for name, minor in (("null", 3), ("urandom", 9)):
        os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    return root


def lock(cache: Path, packages: Sequence[str], suite: str = SUITE) -> DebianLock:
    return lock_debian(Asked(suite=suite, arch="amd64", packages=packages, http=Http(), cache=cache))


def union(trees: Trees, root: Path) -> None:
    for source, tree in trees:
        for entry in tree.entries:
            target = root / entry.path
            if entry.kind == "dir":
                target.mkdir(parents=True, exist_ok=True)
                target.chmod(entry.mode)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(source / entry.path, target, follow_symlinks=False)


def inside(root: Path, command: str) -> str:
    """Run `command` in `root` and return what it printed; a failure shows its output."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
    done = subprocess.run(
        ["chroot", str(root), "/bin/sh", "-c", command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python3 -c 'import ssl, sqlite3, ctypes, lzma, bz2, readline; print(\"fine\")'", "fine"),
        ("python3 -c 'import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 99)'", "True"),
        ("python3 -c 'import ctypes; ctypes.CDLL(\"libGL.so.1\"); print(\"loaded\")'", "loaded"),
        ("git init -q /tmp/r && cd /tmp/r && git -c user.name=a -c user.email=a@b commit -qm hello --allow-empty", ""),
        ("git -C /tmp/r log", "hello"),
        ("ffmpeg -v error -f lavfi -i testsrc=d=1 -frames:v 2 -c:v libx264 -y /tmp/a.mp4", ""),
        ("ffprobe -v error -show_streams /tmp/a.mp4", "h264"),
        ("echo one two | awk '{print $2}'", "two"),
        ("perl -e 'print 6*7'", "42"),
        ("dpkg --audit; dpkg-query -W -f '${Package} ${Status}\\n' git", "git install ok installed"),
        ("apt-get --version", "apt 2"),
        ("apt-get check", "Building dependency tree"),
        ("apt-get install --simulate git ffmpeg", "0 upgraded, 0 newly installed, 0 to remove"),
        ("update-alternatives --display awk", "link currently points to /usr/bin/mawk"),
        ("getent passwd _apt", "/nonexistent"),
        ("su nobody -s /bin/sh -c 'id -un'", "nobody"),
        ("date +%Z; test -d /proc && stat -c %a /tmp", "1777"),
    ],
)  # fmt: skip
def test_the_system_works(system: Path, command: str, expected: str) -> None:
    assert expected in inside(system, command)


def test_every_package_is_listed(system: Path, locked: DebianLock) -> None:
    listed = inside(system, "dpkg-query -W -f '${Package} ${Version} ${Architecture} ${db:Status-Abbrev}\\n'")
    assert sorted(listed.splitlines()) == sorted(f"{deb.name} {deb.version} {deb.arch} ii " for deb in locked.debs)


def test_the_loader_cache_is_what_ldconfig_makes(system: Path) -> None:
    ours = inside(system, "ldconfig -p")
    theirs = inside(system, "ldconfig -C /tmp/cache && ldconfig -p -C /tmp/cache").replace(
        "/tmp/cache", "/etc/ld.so.cache"
    )
    assert [line for line in theirs.splitlines() if not line.startswith("Cache generated")] == ours.splitlines()


def test_the_certificates_are_what_update_ca_certificates_makes(system: Path) -> None:
    show = "cd /etc/ssl/certs && ls -l | awk '{print $9, $10, $11}' && sha256sum ca-certificates.crt"
    ours = inside(system, show)
    inside(system, "rm -r /etc/ssl/certs && mkdir /etc/ssl/certs && update-ca-certificates")
    assert inside(system, show) == ours


def test_unpacked_files_are_what_dpkg_unpacks(trees: Trees, tmp_path: Path) -> None:
    for source, _ in trees:
        if source.name not in ("coreutils", "git", "libc6", "perl-base"):
            continue
        theirs = tmp_path / source.name
        subprocess.run(["dpkg", "-x", str(source) + ".deb", str(theirs)], check=True)
        for path in theirs.rglob("*"):
            ours = source / merged(str(path.relative_to(theirs)))
            if path.is_file() and not path.is_symlink() and not left_out(str(ours.relative_to(source))):
                assert ours.read_bytes() == path.read_bytes(), ours


def test_unpacking_again_gives_the_same_bytes(trees: Trees, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for source, tree in trees[::25]:
            again = unpack_deb(Path(f"{source}.deb"), tmp_path / source.name, epoch=EPOCH)
            assert diff_id_of(again.entries, below(tmp_path / source.name)) == diff_id_of(tree.entries, below(source))
        pieces = []
        for name in ("one", "two"):
            tree = fill_rootfs(tmp_path / name, trees, suite=SUITE, arch="amd64", epoch=EPOCH)
            pieces.append(diff_id_of(tree.entries, below(tmp_path / name)))
    finally:
        os.umask(before)
    assert pieces[0] == pieces[1]


def test_the_base_needs_no_script(trees: Trees, locked: DebianLock) -> None:
    base = {deb.name for deb in locked.debs if deb.role == "base"}
    assert needs_configure([(root, tree) for root, tree in trees if root.name in base]) == []
    assert needs_configure(trees) == ["libgdk-pixbuf-2.0-0", "shared-mime-info"]


def test_the_base_is_slim(trees: Trees, locked: DebianLock) -> None:
    base = {deb.name for deb in locked.debs if deb.role == "base"}
    assert sum(tree.size for root, tree in trees if root.name in base) < 120_000_000


@pytest.mark.parametrize("suite", RELEASES)
def test_every_release_can_be_a_base(cache: Path, suite: str) -> None:
    try:
        found = lock(cache, WANTED, suite)
    except FetchError as problem:
        missing(f"the mirror has no {suite}: {problem}")
        raise
    assert found.python_full.startswith(RELEASES[suite] + ".")


@pytest.mark.parametrize(
    "packages", [WANTED, ("libglib2.0-0", "fontconfig", "libsm6"), ("gcc", "build-essential", "cmake")]
)
def test_the_closure_is_apts(
    cache: Path, tmp_path: Path, need: object, locked: DebianLock, packages: Sequence[str]
) -> None:
    need("apt-get")  # type: ignore[operator]
    found = lock(cache, packages)
    roots = [deb.name for deb in found.debs if deb.role == "base"]
    theirs = apt_closure(tmp_path, [*roots, *packages])
    assert {f"{deb.name} {deb.version}" for deb in found.debs} == theirs


def apt_closure(folder: Path, packages: Sequence[str]) -> set[str]:
    """Return what apt would install into an empty system, as 'name version'."""
    sources = read_mirrors()
    lines = [f"deb {sources.main[0].root} {suite} main" for suite in (SUITE, f"{SUITE}-updates")]
    lines += [f"deb {mirror.root} {SUITE}-security main" for mirror in sources.security[:1]]
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text("\n".join(lines) + "\n")
    (folder / "apt.conf").write_text(
        f'Dir::State "{folder}"; Dir::State::status "{folder}/status"; Dir::Cache "{folder}/cache";'
        f'Dir::Etc::sourcelist "{folder}/sources.list"; Dir::Etc::sourceparts "-"; Dir::Etc::preferencesparts "-";'
        'APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Install-Recommends "false";'
        'Acquire::Languages "none"; APT::Sandbox::User "root"; Acquire::Check-Valid-Until "false";'
    )
    env = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}
    subprocess.run(["apt-get", "update", "-qq"], env=env, check=True, capture_output=True)
    printed = subprocess.run(
        ["apt-get", "install", "--simulate", "-qq", *packages], env=env, check=True, capture_output=True, text=True
    ).stdout
    words = [shlex.split(line)[1:3] for line in printed.splitlines() if line.startswith("Inst ")]
    return {f"{name} {version.lstrip('(')}" for name, version in words}
