"""Commands of the project: when they run, what they see, and what becomes of it."""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from fakes.trees import make_layer

from mlbox.build.executor import Builder
from mlbox.build.fetch import Places
from mlbox.build.scan import scan_inputs
from mlbox.build.sources import Sources
from mlbox.build.step import Step
from mlbox.errors import BuildError, ProjectError
from mlbox.events import SILENT
from mlbox.http import Http
from mlbox.lock.model import Base, Lock, Target
from mlbox.lock.python.model import Indexes
from mlbox.oci.image import ContainerConfig, Image
from mlbox.paths import Home
from mlbox.plan.export.dockerfile import dockerfile
from mlbox.plan.model import BuildPlan, ImageLayerPiece, LayerPlan
from mlbox.plan.planner import make_plan
from mlbox.plan.run import add_run_layers, run_piece
from mlbox.project.model import RunStep, Settings
from mlbox.store.fsck import fsck
from mlbox.store.store import Store

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
LOCK = Lock(inputs="sha256:" + "0" * 64, target=TARGET, base=Base(suite="bookworm"))


class Steps:
    """Writes what a command would, and remembers what it was given."""

    def __init__(self, write: Callable[[Path, Step], object] | None = None) -> None:
        self.ran: list[Step] = []
        self.seen: list[Mapping[str, bytes]] = []
        self.write = write or (lambda upper, step: (upper / "made").write_text(step.argv[-1]))

    def run(self, step: Step) -> None:
        assert step.changes is not None
        self.ran.append(step)
        self.seen.append(
            {bind.target: bind.source.read_bytes() for bind in step.binds if bind.source.is_file() and bind.readonly}
        )
        self.write(step.changes, step)


class World:
    """A store with one layer to run on, and a project."""

    def __init__(self, home: Home, tmp: Path) -> None:
        self.home, self.store = home, Store(home)
        self.root = tmp / "project"
        (self.root / "scripts").mkdir(parents=True)
        (self.root / "scripts/x.sh").write_text("echo x\n")
        (self.root / "scripts/y.sh").write_text("echo y\n")
        base = make_layer(self.store, "base", {"bin/sh": b"sh", "etc/passwd": b"root\n"})
        piece = ImageLayerPiece(diff_id=base.diff_id)
        self.base = LayerPlan(name="base", kind="base", pieces=(piece,))
        self.steps = Steps()

    def plan(self, *steps: RunStep, **settings: object) -> BuildPlan:
        wanted = Settings(run=steps, **settings)  # type: ignore[arg-type]
        inputs = [scan_inputs(self.root, step.inputs) for step in steps]
        layers = add_run_layers([self.base], "environment", LOCK, wanted, inputs)
        return BuildPlan(arch="amd64", layers=tuple(layers), config=ContainerConfig(), epoch=LOCK.epoch)

    def build(self, plan: BuildPlan, **env: str) -> Image:
        places = Places(lambda: Indexes(default=None), Http(), home=self.home, root=self.root, target=TARGET)
        sources = Sources(plan, places, lambda deb: (), self.store.artifacts, Http(), SILENT)
        return Builder(self.store, sources, self.steps, SILENT, self.root, env=env).build(plan)

    def files(self, image: Image) -> dict[str, bytes]:
        """Return the files of the highest layer."""
        root = self.store.layers.root(image.config.rootfs.diff_ids[-1])
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def world(home: Home, tmp_path: Path) -> World:
    return World(home, tmp_path)


def sh(text: str, **more: object) -> RunStep:
    return RunStep(command=("/bin/sh", "-ec", text), **more)  # type: ignore[arg-type]


def test_a_command_runs_once_on_what_is_below(world: World) -> None:
    plan = world.plan(sh("one"), sh("two"))
    image = world.build(plan)
    assert [step.argv[-1] for step in world.steps.ran] == ["one", "two"]
    assert [len(step.lower) for step in world.steps.ran] == [1, 2]
    assert world.files(image) == {"made": b"two"}
    assert [one.comment for one in image.config.history][1].startswith("one; run in a container, pinned by its output")
    assert world.build(plan).digest == image.digest
    assert world.build(world.plan(sh("one"), sh("two"), sh("three"))).config.rootfs.diff_ids[:3] == (
        image.config.rootfs.diff_ids
    )
    assert [step.argv[-1] for step in world.steps.ran] == ["one", "two", "three"]


CHANGES: dict[str, Callable[[World], BuildPlan]] = {
    "command": lambda world: world.plan(sh("other", inputs=("scripts",))),
    "variable": lambda world: world.plan(sh("one", inputs=("scripts",), env={"A": "b"})),
    "variable of the image": lambda world: world.plan(sh("one", inputs=("scripts",)), env={"A": "b"}),
    "gpu": lambda world: world.plan(sh("one", inputs=("scripts",), gpu=True)),
    "network": lambda world: world.plan(sh("one", inputs=("scripts",), network=True)),
    "secret": lambda world: world.plan(sh("one", inputs=("scripts",), secrets=("TOKEN",))),
    "fewer inputs": lambda world: world.plan(sh("one", inputs=("scripts/x.sh",))),
    "layer below": lambda world: world.plan(sh("zero"), sh("one", inputs=("scripts",))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_makes_a_command_run_again(world: World, change: Callable[[World], BuildPlan]) -> None:
    world.build(world.plan(sh("one", inputs=("scripts",))))
    world.build(change(world), TOKEN="hunter2")
    assert len(world.steps.ran) > 1


def test_the_content_of_inputs_decides(world: World) -> None:
    step = sh("one", inputs=("scripts/x.sh",))
    world.build(world.plan(step))
    (world.root / "scripts/y.sh").write_text("changed\n")
    os.utime(world.root / "scripts/x.sh", (1, 1))
    world.build(world.plan(step))
    assert len(world.steps.ran) == 1
    (world.root / "scripts/x.sh").write_text("changed\n")
    world.build(world.plan(step))
    assert [seen["/workspace/scripts/x.sh"] for seen in world.steps.seen] == [b"echo x\n", b"changed\n"]


def test_the_value_of_a_secret_decides_nothing_and_is_kept_nowhere(world: World) -> None:
    plan = world.plan(sh("one", secrets=("TOKEN",)))
    image = world.build(plan, TOKEN="hunter2", OTHER="x")
    assert world.steps.seen == [{"/run/secrets/TOKEN": b"hunter2"}]
    assert world.build(plan, TOKEN="changed").digest == image.digest
    assert "TOKEN" not in world.steps.ran[0].env
    assert not world.steps.ran[0].binds[0].source.exists()
    for path in world.home.root.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes()


def test_a_secret_that_nobody_set(world: World) -> None:
    with pytest.raises(BuildError, match="one needs the secret TOKEN, and no variable of that name is set"):
        world.build(world.plan(sh("one", secrets=("TOKEN",))))
    assert world.steps.ran == []


def test_secrets_in_the_output_of_a_failure_are_hidden(world: World) -> None:
    def fail(upper: Path, step: Step) -> None:
        raise BuildError("curl failed with status 1\nAuthorization: hunter2")

    world.steps.write = fail
    with pytest.raises(BuildError, match=r"Authorization: \[TOKEN\]"):
        world.build(world.plan(sh("one", secrets=("TOKEN",))), TOKEN="hunter2")


@pytest.mark.parametrize(("network", "hint"), [(False, "network = true"), (True, "")])
def test_a_command_that_misses_the_network_is_told_how_to_have_it(world: World, network: bool, hint: str) -> None:
    def fail(upper: Path, step: Step) -> None:
        raise BuildError("socket.gaierror: [Errno -3] Temporary failure in name resolution")

    world.steps.write = fail
    with pytest.raises(BuildError) as caught:
        world.build(world.plan(sh("one", network=network)))
    assert hint in (caught.value.hint or "")
    assert bool(caught.value.hint) is bool(hint)


def test_a_part_of_a_secret_is_hidden_too(world: World) -> None:
    """The end of an output may hold the last lines of a key."""

    def fail(upper: Path, step: Step) -> None:
        raise BuildError("failed with status 1\nAAAAB3NzaC1y\nc2EAAAAD")

    world.steps.write = fail
    with pytest.raises(BuildError, match=r"status 1\n\[KEY\]\n\[KEY\]$"):
        world.build(world.plan(sh("one", secrets=("KEY",))), KEY="-----BEGIN\nAAAAB3NzaC1y\nc2EAAAAD\n")


def test_a_command_that_writes_its_secret_fails(world: World) -> None:
    world.steps.write = lambda upper, step: (upper / "conf").write_bytes(b"token=hunter2")
    with pytest.raises(BuildError, match="wrote the secret TOKEN into /conf"):
        world.build(world.plan(sh("one", secrets=("TOKEN",))), TOKEN="hunter2")
    assert list(world.home.tmp.iterdir()) == []


def test_variables(world: World) -> None:
    """The image's and its own, what keeps it from chance, and proxies of the host where there is a network."""
    world.build(
        world.plan(sh("one", env={"A": "b", "TZ": "Asia/Tokyo"}), sh("two", network=True, gpu=True), env={"OMP": "4"}),
        HTTPS_PROXY="http://proxy.example",
        HOME="/home/me",
    )
    first, second = (step.env for step in world.steps.ran)
    assert (first["A"], first["TZ"], first["OMP"], first["HOME"]) == ("b", "Asia/Tokyo", "4", "/root")
    assert (first["SOURCE_DATE_EPOCH"], first["PYTHONDONTWRITEBYTECODE"]) == (str(LOCK.epoch), "1")
    assert "HTTPS_PROXY" not in first
    assert second["HTTPS_PROXY"] == "http://proxy.example"
    assert [(step.network, step.gpus) for step in world.steps.ran] == [(False, False), (True, True)]


def test_a_failure_leaves_nothing(world: World) -> None:
    def fail(upper: Path, step: Step) -> None:
        (upper / "half").write_bytes(b"x")
        raise BuildError("failed with status 1")

    world.steps.write = fail
    with pytest.raises(BuildError):
        world.build(world.plan(sh("one")))
    assert list(world.home.tmp.iterdir()) == []
    assert len(list(world.store.layers.diff_ids())) == 1
    world.steps.write = lambda upper, step: (upper / "whole").write_bytes(b"x")
    assert world.files(world.build(world.plan(sh("one")))) == {"whole": b"x"}


def test_a_command_that_changes_nothing_is_an_empty_layer(world: World) -> None:
    world.steps.write = lambda upper, step: None
    image = world.build(world.plan(sh("one"), sh("two")))
    assert len(set(image.config.rootfs.diff_ids)) == 2
    assert world.files(image) == {}


def test_a_plan_whose_command_ran_elsewhere_is_refused(world: World) -> None:
    """A plan may come from a stranger."""
    plan = world.plan(sh("one"), sh("two"))
    moved = msgspec.structs.replace(plan, layers=(plan.layers[0], plan.layers[2]))
    with pytest.raises(BuildError, match="run 2: the plan has it on other layers"):
        world.build(moved)
    mixed = LayerPlan(name="mixed", kind="run", pieces=(*plan.layers[1].pieces, *plan.layers[2].pieces))
    with pytest.raises(BuildError, match="is a layer, and no part of one"):
        world.build(msgspec.structs.replace(plan, layers=(plan.layers[0], mixed)))


def test_inputs_that_change_while_they_are_read(world: World) -> None:
    plan = world.plan(sh("one", inputs=("scripts",)))
    (world.root / "scripts/x.sh").write_text("echo z\n")
    with pytest.raises(ProjectError, match=r"scripts/x\.sh: changed while being read"):
        world.build(plan)
    assert world.steps.ran == []


BAD_INPUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda root: None, "No such file"),
    "a link outside": (lambda root: (root / "in").symlink_to("/etc"), "is a link"),
    "behind a link": (lambda root: (root / "in").symlink_to("/etc", target_is_directory=True), "is a link"),
    "a link inside a folder": (
        lambda root: ((root / "in").mkdir(), (root / "in/l").symlink_to("/etc/passwd")),
        "leaves the project",
    ),
    "a pipe": (lambda root: os.mkfifo(root / "in"), "is a socket, pipe or device"),
}


@pytest.mark.parametrize(("make", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_inputs_that_cannot_be(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path)
    with pytest.raises(ProjectError, match=message):
        scan_inputs(tmp_path, ["in"])


def test_builds_at_the_same_time_run_it_once(world: World) -> None:
    """The second waits for the first, and takes what it made."""
    world.steps.write = lambda upper, step: (time.sleep(0.2), (upper / "made").write_bytes(os.urandom(8)))
    plan = world.plan(sh("one"))
    with ThreadPoolExecutor(3) as pool:
        images = list(pool.map(lambda _: world.build(plan), range(3)))
    assert len({image.digest for image in images}) == 1
    assert len(world.steps.ran) == 1


def test_folders_too_deep_are_removed_too(world: World) -> None:
    def dig(upper: Path, step: Step) -> None:
        fd = os.open(upper, os.O_RDONLY)
        for _ in range(60):
            os.mkdir("d" * 200, dir_fd=fd)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)

    world.steps.write = dig
    with pytest.raises(BuildError, match="deeper than a path can say"):
        world.build(world.plan(sh("one")))
    assert list(world.home.tmp.iterdir()) == []


def test_the_store_stays_whole(world: World) -> None:
    world.build(world.plan(sh("one")))
    assert fsck(world.store, deep=True).clean


def test_where_commands_stand_in_a_plan() -> None:
    """Before and after the project's files; the Dockerfile says the same."""
    steps = (sh("first"), sh("last", after="project", inputs=("x",), secrets=("T",)), sh("second", network=True))
    plan = make_plan(LOCK, Settings(run=steps), (), None)
    assert [layer.name for layer in plan.layers[2:]] == ["run 1", "run 3", "project", "run 2"]
    assert plan.key != make_plan(LOCK, Settings(run=steps[:2]), (), None).key
    lines = [line for line in dockerfile(plan, LOCK, (), ()).splitlines() if line.startswith(("RUN", "COPY"))]
    first, second, copy, last = lines[-4:]
    assert first.startswith('RUN ["env","DEBIAN_FRONTEND=noninteractive",')
    assert first.endswith('"/bin/sh","-ec","first"]')
    assert second.endswith('"second"]')
    assert copy == 'COPY --from=project ["/context","/workspace"]'
    assert "--mount=type=bind,source=x,target=/workspace/x --mount=type=secret,id=T [" in last
    piece = run_piece(plan.layers[2])
    assert piece is not None
    assert piece.below != run_piece(plan.layers[3]).below  # type: ignore[union-attr]
