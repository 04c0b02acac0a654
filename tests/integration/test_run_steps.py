"""Commands that change the image, in real containers: what becomes of their changes, and what they cannot do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.containers import busybox_rootfs, monitors_of, wait_for

from mlbox.build.executor import Builder
from mlbox.build.fetch import Places
from mlbox.build.scan import scan_inputs
from mlbox.build.sources import Sources
from mlbox.engine.running import containers_of, step_runner
from mlbox.errors import BuildError, MlboxError
from mlbox.http import Http
from mlbox.linux.mount import MNT_DETACH, mount, umount
from mlbox.lock.model import Base, Lock, Target
from mlbox.lock.python.model import Indexes
from mlbox.oci.image import ContainerConfig, Image
from mlbox.paths import Home
from mlbox.plan.model import BuildPlan, ImageLayerPiece, LayerPlan
from mlbox.plan.run import add_run_layers
from mlbox.project.model import RunStep, Settings
from mlbox.store.fsck import fsck
from mlbox.store.store import Store
from mlbox.store.tree import Tree, TreeWriter, below, diff_id_of, tar_chunks

pytestmark = pytest.mark.integration

LOCK = Lock(
    inputs="sha256:" + "0" * 64,
    target=Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36"),
    base=Base(suite="bookworm"),
)
PATH = {"PATH": "/bin"}
BUILDER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_run_steps import World, sh
World(Path(sys.argv[1])).build(sh(sys.argv[2]))
"""


class Notes:
    """Remembers what a build says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, what: str) -> None: ...
    def expect(self, what: str, size: int) -> None: ...
    def advance(self, size: int) -> None: ...


class World:
    """A store with a layer of busybox, and a project."""

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self.home = Home(home or folder / "home")
        self.store = Store(self.home)
        self.root = folder / "project"
        self.rootfs = folder / "rootfs"
        self.notes = Notes()

    def prepare(self, busybox: str) -> "World":
        """Make the layer."""
        self.root.mkdir(exist_ok=True)
        if not self.rootfs.exists():
            busybox_rootfs(self.rootfs, busybox)
            for name in ("rm", "mv", "mkfifo", "chmod", "cp", "date", "nslookup", "sync"):
                (self.rootfs / "bin" / name).symlink_to("busybox")
            (self.rootfs / "usr/share/doc").mkdir(parents=True)
            (self.rootfs / "usr/share/doc/readme").write_text("read me\n")
        return self

    def base(self) -> LayerPlan:
        """Have the layer in the store."""
        tree = _tree(self.rootfs)
        diff_id = diff_id_of(tree.entries, below(self.rootfs))
        self.store.layers.ingest(diff_id, tar_chunks(tree.entries, below(self.rootfs)), "busybox")
        return LayerPlan(name="busybox", kind="base", pieces=(ImageLayerPiece(diff_id=diff_id),))

    def build(self, *steps: RunStep, **env: str) -> Image:
        """Build an image of the layer and `steps`."""
        settings = Settings(run=steps, env=PATH)
        inputs = [scan_inputs(self.root, step.inputs) for step in steps]
        layers = add_run_layers([self.base()], "environment", LOCK, settings, inputs)
        plan = BuildPlan(arch="amd64", layers=tuple(layers), config=ContainerConfig(), epoch=LOCK.epoch)
        places = Places(lambda: Indexes(default=None), Http(), home=self.home, root=self.root)
        sources = Sources(plan, places, lambda deb: (), self.store.artifacts, Http(), self.notes)
        return Builder(self.store, sources, step_runner(self.home), self.notes, self.root, env=env).build(plan)

    def entries(self, image: Image, number: int = -1) -> dict[str, tuple[str, int, int, int]]:
        """Return kind, mode and owner of what a layer holds."""
        entries = self.store.layers.entries(image.config.rootfs.diff_ids[number])
        return {one.path: (one.kind, one.mode, one.uid, one.gid) for one in entries}

    def top(self, image: Image) -> Path:
        """Return the files of the highest layer."""
        return self.store.layers.root(image.config.rootfs.diff_ids[-1])

    def check_clean(self) -> None:
        """Nothing of a build is left but what it made."""
        wait_for(lambda: not monitors_of(self.home), "monitors to end")
        assert containers_of(self.home).list() == []
        assert str(self.home.root) not in Path("/proc/self/mountinfo").read_text()
        assert list(self.home.tmp.glob("*")) == []
        assert fsck(self.store, deep=True).clean


def _tree(root: Path) -> Tree:
    """Describe a folder as the tree that it is."""
    writer = TreeWriter(root.parent / "copy", "busybox")
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if writer.kind(name) is not None:
            continue
        if path.is_symlink():
            writer.symlink(name, os.readlink(path))  # noqa: PTH115
        elif path.is_dir():
            writer.directory(name, path.stat().st_mode & 0o7777)
        else:
            writer.file(name, [path.read_bytes()], 0o755 if os.access(path, os.X_OK) else 0o644)
    tree = writer.finish()
    subprocess.run(["rm", "-rf", str(root.parent / "copy")], check=True)
    return tree


def sh(text: str, **more: object) -> RunStep:
    return RunStep(command=("/bin/sh", "-ec", text), **more)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path, need: Callable[[str], str]) -> Iterator[World]:
    need("runc")
    one = World(tmp_path).prepare(need("busybox"))
    yield one
    one.check_clean()


def test_changes_become_a_layer(world: World) -> None:
    """Additions, changes, deletions, owners; a later command sees them."""
    image = world.build(
        sh(
            "mkdir -p /opt/data; echo x > /opt/data/file; chown 1000:1001 /opt/data/file; echo me >> /etc/group;"
            "rm /etc/passwd; rm -r /usr/share/doc; mkdir /usr/share/doc; echo new > /usr/share/doc/new;"
            "date > /tmp/when"
        ),
        sh("test ! -e /etc/passwd; test ! -e /usr/share/doc/readme; cat /opt/data/file /usr/share/doc/* > /opt/seen"),
    )
    first = world.entries(image, 1)
    assert first["opt/data/file"] == ("file", 0o644, 1000, 1001)
    assert first["etc/passwd"][0] == "whiteout"
    assert "tmp/when" not in first
    assert (world.top(image) / "opt/seen").read_text() == "x\nnew\n"
    assert sorted(world.entries(image)) == ["opt", "opt/seen"]


def test_two_stores_make_the_same(world: World, tmp_path: Path) -> None:
    """At another time, with another umask."""
    step = sh("mkdir /opt; echo x > /opt/x; date > /tmp/y; chown 5:6 /opt/x; touch /etc/passwd")
    before = os.umask(0o077)
    try:
        other = World(tmp_path, tmp_path / "other")
        assert other.build(step).digest == world.build(step).digest
        other.check_clean()
    finally:
        os.umask(before)


def test_a_command_that_differs_each_time_is_kept_as_it_came(world: World, tmp_path: Path) -> None:
    """Pinned by its output: built again it is the same, made again it is another."""
    step = sh("cat /proc/sys/kernel/random/uuid > /uuid")
    assert world.build(step).digest == world.build(step).digest
    assert World(tmp_path, tmp_path / "other").build(step).digest != world.build(step).digest


def test_processes_left_behind_are_ended(world: World) -> None:
    began = time.monotonic()
    image = world.build(sh("sleep 1000 & (sleep 1000; echo late > /late) & echo now > /now"))
    assert time.monotonic() - began < 60
    assert sorted(world.entries(image)) == ["now"]


def test_no_network_unless_asked(world: World) -> None:
    image = world.build(sh("cat /proc/net/dev | grep -c : > /alone"), sh("cat /proc/net/dev > /all", network=True))
    layers = image.config.rootfs.diff_ids
    assert (world.store.layers.root(layers[1]) / "alone").read_text() == "1\n"
    host = {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines() if ":" in line}
    seen = (world.top(image) / "all").read_text()
    assert {line.split(":")[0].strip() for line in seen.splitlines() if ":" in line} == host
    assert sorted(world.entries(image)) == ["all"]


def test_inputs_are_read_only_and_leave_no_trace(world: World) -> None:
    (world.root / "scripts").mkdir()
    (world.root / "scripts/make.sh").write_text("echo made > /made\n")
    (world.root / "other").write_text("not seen\n")
    refused = "if echo x > scripts/make.sh; then exit 1; fi 2> /tmp/errors; test ! -e other; pwd > /where"
    image = world.build(sh(f"sh scripts/make.sh; {refused}", inputs=("scripts",)))
    assert sorted(world.entries(image)) == ["made", "where"]
    assert (world.top(image) / "where").read_text() == "/workspace\n"
    assert (world.root / "scripts/make.sh").read_text() == "echo made > /made\n"


def test_secrets(world: World) -> None:
    """Seen while it runs, by nobody but root; gone afterwards, from everywhere."""
    step = sh("wc -c < /run/secrets/TOKEN > /size; ls -l /run/secrets/TOKEN > /mode; env > /env", secrets=("TOKEN",))
    image = world.build(step, TOKEN="hunter2hunter2", UNSEEN="sesame")
    top = world.top(image)
    assert (top / "size").read_text().strip() == "14"
    assert (top / "mode").read_text().startswith("-r--------")
    assert sorted(world.entries(image)) == ["env", "mode", "size"]
    for path in world.home.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert b"hunter2" not in data, path
            assert b"sesame" not in data, path
    assert list(Path("/dev/shm").glob("mlbox-*")) == []
    with pytest.raises(BuildError, match="wrote the secret TOKEN into /conf") as leak:
        world.build(sh("cp /run/secrets/TOKEN /conf", secrets=("TOKEN",)), TOKEN="hunter2hunter2")
    with pytest.raises(BuildError, match=r"curl: \[TOKEN\]") as told:
        world.build(sh("echo curl: $(cat /run/secrets/TOKEN); exit 3", secrets=("TOKEN",)), TOKEN="hunter2hunter2")
    assert "hunter2" not in leak.value.message + told.value.message


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo what; exit 7", r"^/bin/sh -ec 'echo what; exit 7' failed with status 7\nwhat$"),
        ("exit 7", r"failed with status 7$"),
        ("mknod /dev/../null2 c 1 3", "Operation not permitted"),
        ("mknod /block b 8 0", "Operation not permitted"),
        ("mount -t tmpfs x /opt", "(permission denied|Operation not permitted)"),
        ("echo x > /.wh.etc", "a name that means a deletion"),
        ("mkdir /d; echo x > /d/.wh..wh..opq", "a name that means a deletion"),
        ("dd if=/bin/sh of=/huge bs=1 count=1 seek=1000000000000", "mostly holes"),
        ("echo x > /proc/sys/kernel/hostname", "Read-only"),
        ("exec /none", "not found"),
    ],
    ids=["status", "silent", "device", "block device", "mount", "whiteout", "opaque", "holes", "kernel", "no program"],
)
def test_what_a_command_cannot_do(world: World, command: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        world.build(sh(command))


def test_odd_files(world: World) -> None:
    """Setuid bits go, pipes stay out, links lead nowhere but inside."""
    image = world.build(
        sh(
            "cp /bin/busybox /su; chmod 6755 /su; mkfifo /pipe; ln -s / /root-of-all; ln -s ../../../etc/shadow /up;"
            "ln -s /etc/ld.so.cache /x.pyc; mkdir /t; chmod 1777 /t; chmod 2755 /t; printf 'a\\nb' > '/new\nline'"
        )
    )
    found = world.entries(image)
    assert found["su"] == ("file", 0o755, 0, 0)
    assert "pipe" not in found
    assert found["t"][1] == 0o755
    assert {found[name][0] for name in ("root-of-all", "up", "x.pyc")} == {"symlink"}
    assert "new\nline" in found
    assert len([note for note in world.notes.notes if "setuid" in note or "pipe" in note]) == 2


def test_a_renamed_folder(world: World) -> None:
    """Kernels may keep one as a reference to a lower layer; a layer has its files."""
    parameter = Path("/sys/module/overlay/parameters/redirect_dir")
    before = parameter.read_text() if parameter.exists() else ""
    try:
        if before:
            parameter.write_text("Y")
        image = world.build(sh("mv /usr/share/doc /usr/share/papers; chmod 600 /usr/share/papers/readme"))
    finally:
        if before:
            parameter.write_text(before)
    assert (world.top(image) / "usr/share/papers/readme").read_text() == "read me\n"
    assert world.entries(image)["usr/share/doc"][0] == "whiteout"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount("tmpfs", str(folder), "tmpfs", data=f"size={size}")
    try:
        yield folder
    finally:
        umount(str(folder), MNT_DETACH)  # a monitor that is about to end may still have a file open


def test_a_full_disk(world: World, tmp_path: Path) -> None:
    """The command fails, the store is whole, and there is room again."""
    with small_disk(tmp_path / "small", "64m") as disk:
        one = World(tmp_path, disk / "home")
        try:
            with pytest.raises(MlboxError):
                one.build(sh("dd if=/dev/zero of=/big bs=1M count=200"))
            assert (one.top(one.build(sh("echo fits > /fits"))) / "fits").read_text() == "fits\n"
            one.check_clean()
        finally:
            one.store.close()


def test_a_monitor_that_is_killed_leaves_nothing(world: World) -> None:
    """The build fails at once, and its command does not run on."""
    with ThreadPoolExecutor(1) as pool:
        build = pool.submit(world.build, sh("echo half > /half; exec sleep 1234"))
        wait_for(lambda: list(world.home.tmp.glob("capture-*/changes/half")), "the command to begin", 60)
        for monitor in monitors_of(world.home):
            os.kill(monitor, signal.SIGKILL)
        with pytest.raises(BuildError, match="monitor was killed"):
            build.result(timeout=60)
    running = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert "sleep 1234" not in running.splitlines()


def test_who_is_killed_takes_the_command_along(world: World, tmp_path: Path) -> None:
    """What a killed build leaves is found and removed, and the next build makes the layer."""
    argv = [sys.executable, "-c", BUILDER, str(tmp_path), "echo half > /half; sleep 1000"]
    argv += [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as child:
        try:
            wait_for(lambda: list(world.home.tmp.glob("capture-*/changes/half")), "the command to begin", 60)
        finally:
            child.send_signal(signal.SIGKILL)
    wait_for(lambda: not monitors_of(world.home), "the container to end", 20)
    assert [name.partition("/")[0] for name in fsck(world.store).leftovers] != []
    assert fsck(world.store, deep=True).clean
    assert (world.top(world.build(sh("echo whole > /whole"))) / "whole").read_text() == "whole\n"
