"""An image is made again from its locked files, and every byte that differs is named."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fakes.trees import make_layer
from fakes.wheels import make_wheel

from mlbox.build.executor import Builder
from mlbox.build.fetch import Places
from mlbox.build.project import scan_project
from mlbox.build.rebuild import encode_plan
from mlbox.build.sources import Sources
from mlbox.codec import canonical_json
from mlbox.engine import verifying
from mlbox.engine.verifying import LayerCheck, Verification, verify
from mlbox.errors import MlboxError, NotFoundError, UsageError
from mlbox.events import SILENT
from mlbox.http import Http
from mlbox.lock.file import encode_lock
from mlbox.lock.model import Base, CondaPackage, LayerGroup, Lock, Package, Target
from mlbox.lock.python.model import Indexes
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, artifact_of, subject_of
from mlbox.oci.digest import DiffID, digest_of
from mlbox.oci.image import Image, RootFS, local_image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.plan.model import BuildPlan, ImageLayerPiece, LayerPlan, WheelPiece
from mlbox.plan.planner import make_plan
from mlbox.project.model import Settings
from mlbox.store.store import Store

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
SITE = "opt/mlbox/env/lib/python3.11/site-packages"


class NoSteps:
    """No container can run."""

    def run(self, step: object) -> None:
        raise AssertionError("nothing here needs a container")


def locked(store: Store, folder: Path, *names: str) -> tuple[Package, ...]:
    """Return packages whose wheels are in the store."""
    packages = []
    for name in names:
        path = make_wheel(folder, {f"{name}/__init__.py": b"x = 1\n" * 50, f"{name}/data.bin": bytes(3000)}, name=name)
        sha256 = store.artifacts.add_file(path)
        size = path.stat().st_size
        packages.append(Package(name=name, version="1.0", filename=path.name, sha256=sha256, size=size))
    return tuple(packages)


class World:
    """A project, its image in a store, and what it was made from."""

    def __init__(self, home: Home, tmp: Path) -> None:
        self.home = home
        self.store = Store(home)
        self.root = tmp / "project"
        (self.root / "sub").mkdir(parents=True)
        (self.root / "train.py").write_text("print(1)\n")
        (self.root / "sub/more.py").write_text("print(2)\n")
        packages = locked(self.store, tmp, "one", "two", "three")
        groups = (LayerGroup(name="one", packages=("one",)), LayerGroup(name="small", packages=("three", "two")))
        self.lock = Lock(
            inputs="sha256:" + "0" * 64, target=TARGET, base=Base(suite="bookworm"), packages=packages, layers=groups
        )
        files = scan_project(self.root, Settings(), cache=home.metadata, store=home.root)
        plan = make_plan(self.lock, Settings(), files, None)
        # Without the base: unpacking .debs has tests of its own.
        self.plan = msgspec.structs.replace(plan, layers=plan.layers[1:])
        self.image = self.build(self.plan)
        self.attach(self.plan)
        self.store.images.tag(self.image.digest, parse_reference("me:1"))

    def build(self, plan: BuildPlan) -> Image:
        """Build a plan of files that are in the store."""
        places = Places(lambda: Indexes(default=None), Http(), home=self.home, root=self.root, target=TARGET)
        sources = Sources(plan, places, lambda deb: (), self.store.artifacts, Http(), SILENT)
        return Builder(self.store, sources, NoSteps(), SILENT, self.root).build(plan)

    def attach(self, plan: BuildPlan, lock: Lock | None = None) -> None:
        """Attach a plan, and maybe a lock."""
        subject = subject_of(self.image.digest, self.image.manifest_bytes)
        self.store.referrers.add(artifact_of(PLAN_TYPE, encode_plan(plan)), subject)
        if lock is not None:
            self.store.referrers.add(artifact_of(LOCK_TYPE, encode_lock(lock)), subject)

    def layer(self, name: str) -> Path:
        """Return the files of a layer."""
        number = [layer.name for layer in self.plan.layers].index(name)
        return self.store.layers.root(self.image.config.rootfs.diff_ids[number])

    def verify(self, layer: str = "") -> Verification:
        """Verify the image from what is attached to it."""
        return verify(self.home, SILENT, name="me:1", layer=layer)


@pytest.fixture
def world(home: Home, tmp_path: Path) -> World:
    return World(home, tmp_path)


def wrong(found: Verification) -> dict[str, LayerCheck]:
    return {layer.name: layer for layer in found.layers if layer.state != "equal"}


def edit(path: Path, offset: int, data: bytes) -> None:
    """Write into a file and give it its old time back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    os.utime(path, (status.st_mtime, status.st_mtime))


def test_an_image_that_is_what_its_plan_says(world: World) -> None:
    """All layers, the configuration and the digest are equal, and the scratch store is gone."""
    found = world.verify()

    assert found.ok
    assert {layer.state for layer in found.layers} == {"equal"}
    assert (found.config, found.manifest) == ("equal", "equal")
    assert all(layer.rebuilt == layer.diff_id for layer in found.layers)
    assert not list(world.home.tmp.iterdir())


def test_nothing_of_the_store_but_hashed_files_is_used(world: World) -> None:
    """An edit of a hard link that a piece shares with its layer does not spoil the comparison."""
    path = world.layer("one") / f"{SITE}/one/data.bin"
    assert path.stat().st_nlink > 1

    edit(path, 1000, b"\xde\xad")
    check = wrong(world.verify())["one"]

    assert check.state == "changed on disk"
    assert check.rebuilt == check.diff_id
    (difference,) = check.differences
    assert (difference.path, difference.what, difference.offset) == (f"{SITE}/one/data.bin", "content", 1000)
    assert (difference.found[:5], difference.expected[:5]) == ("de ad", "00 00")
    assert difference.piece == "one 1.0"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda root: (root / f"{SITE}/two/data.bin").chmod(0o755), {"mode"}),
        (lambda root: (root / f"{SITE}/two/extra.py").write_bytes(b"x"), {"extra", "time"}),
        (lambda root: (root / f"{SITE}/two/data.bin").unlink(), {"missing", "time"}),
        (lambda root: os.utime(root / f"{SITE}/two/data.bin", (1, 1)), {"time"}),
    ],
)
def test_everything_about_a_file_counts(world: World, damage: Callable[[Path], object], what: set[str]) -> None:
    """In a layer of several packages the one is named."""
    damage(world.layer("small"))

    found = world.verify()

    assert not found.ok
    assert {one.what for one in wrong(found)["small"].differences} == what


def test_a_changed_file_of_the_project_is_named(world: World) -> None:
    """Its original is not here, its hash is."""
    edit(world.layer("project") / "workspace/sub/more.py", 0, b"P")

    check = wrong(world.verify())["project"]

    assert check.state == "different"
    assert [(one.path, one.what) for one in check.differences] == [("workspace/sub/more.py", "content")]


def test_a_changed_artifact_is_not_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fetched again; where nobody has it, that is said."""
    edit(world.store.artifacts.path(world.lock.packages[0].sha256), 10, b"xx")
    monkeypatch.setenv("MLBOX_OFFLINE", "1")

    with pytest.raises(MlboxError):
        world.verify("one")


def test_a_layer_of_the_same_files_in_another_tar(world: World) -> None:
    """There is no file to name, and that is said."""
    out = io.BytesIO()
    diff_ids = list(world.image.config.rootfs.diff_ids)
    number = [layer.name for layer in world.plan.layers].index("one")
    with (
        tarfile.open(fileobj=io.BytesIO(b"".join(map(bytes, world.store.layers.tar(diff_ids[number]))))) as tar,
        tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as other,
    ):
        for member in tar:
            member.uname = "somebody"
            other.addfile(member, tar.extractfile(member) if member.isfile() else None)
    diff_ids[number] = DiffID(digest_of(out.getvalue()))
    world.store.layers.ingest(diff_ids[number], [out.getvalue()], "foreign")
    config = msgspec.structs.replace(world.image.config, rootfs=RootFS(diff_ids=tuple(diff_ids)))
    world.image = local_image(canonical_json(config), [layer.size for layer in world.image.manifest.layers])
    world.store.images.add(world.image)
    world.store.images.tag(world.image.digest, parse_reference("me:1"))
    world.attach(world.plan)

    check = wrong(world.verify())["one"]

    assert (check.state, check.differences) == ("different", ())
    assert "its tar says it otherwise" in check.reason


def test_another_image_than_the_plan_makes(world: World) -> None:
    """The attached plan has another package: the layer is different, and the files say how."""
    layers = list(world.plan.layers)
    piece = layers[1].pieces[0]
    assert isinstance(piece, WheelPiece)
    layers[1] = msgspec.structs.replace(layers[1], pieces=(msgspec.structs.replace(piece, requested=True),))
    world.attach(msgspec.structs.replace(world.plan, layers=tuple(layers)))

    found = world.verify()

    check = wrong(found)["one"]
    assert check.state == "different"
    assert check.rebuilt != check.diff_id
    assert {one.what for one in check.differences} >= {"missing"}
    assert found.manifest == found.config == "different"


def test_a_plan_that_is_not_the_locks(world: World) -> None:
    """The image follows from the plan, but the plan does not follow from the lock."""
    world.attach(world.plan, world.lock)

    found = world.verify()

    assert not wrong(found)
    assert not found.ok
    assert any("plan" in problem for problem in found.problems)


def test_another_configuration(world: World) -> None:
    config = msgspec.structs.replace(world.plan.config, user="nobody")
    world.attach(msgspec.structs.replace(world.plan, config=config))

    found = world.verify()

    assert not found.ok
    assert "config user: '', not 'nobody'" in found.problems


def test_one_layer_alone(world: World) -> None:
    """By number or by name."""
    edit(world.layer("one") / f"{SITE}/one/data.bin", 0, b"x")

    found = world.verify("small")
    assert found.ok
    assert found.manifest == "not asked for"
    assert [layer.name for layer in world.verify("1").layers] == ["python environment"]
    assert not world.verify("one").ok
    with pytest.raises(UsageError) as problem:
        world.verify("nine")
    assert "2 one" in (problem.value.hint or "")


def test_a_layer_that_is_not_in_the_store(world: World) -> None:
    world.store.layers.delete(world.image.config.rootfs.diff_ids[1])

    assert wrong(world.verify())["one"].reason == "its files are not in the store"


def test_an_image_without_a_plan(world: World, home: Home) -> None:
    """A foreign image has nothing to be made from; the hint says how to say it."""
    from fakes.images import make_image

    make_image(world.store, {"a": {"x": b"1"}}, name="foreign:1")

    with pytest.raises(NotFoundError, match="no lock") as problem:
        verify(home, SILENT, name="foreign:1")
    assert "mlbox verify mlbox.lock foreign:1" in (problem.value.hint or "")


@pytest.mark.parametrize("workdir", ["/../../escape", "/workspace/../.."])
def test_a_plan_that_points_outside_the_layer(world: World, workdir: str) -> None:
    """Attachments may come from strangers: nothing outside the layer is read."""
    layers = list(world.plan.layers)
    piece = msgspec.structs.replace(layers[-1].pieces[0], workdir=workdir)
    layers[-1] = msgspec.structs.replace(layers[-1], pieces=(piece,))
    world.attach(msgspec.structs.replace(world.plan, layers=tuple(layers)))

    assert wrong(world.verify())["project"].state == "different"


def test_differences_are_not_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "MOST_DIFFERENCES", 2)
    for name in ("__init__.py", "data.bin"):
        (world.layer("small") / f"{SITE}/two/{name}").chmod(0o700)
        (world.layer("small") / f"{SITE}/three/{name}").chmod(0o700)

    check = wrong(world.verify())["small"]

    assert len(check.differences) == 2
    assert check.more


def test_an_image_on_layers_of_another(world: World) -> None:
    """They are pinned by their digests: there is nothing to make, but what lies on the disk is hashed."""
    below = make_layer(world.store, "below", {"etc/os-release": b"ID=other"})
    layer = LayerPlan(name="other 1/1", kind="base", pieces=(ImageLayerPiece(diff_id=below.diff_id),))
    plan = msgspec.structs.replace(world.plan, layers=(layer, *world.plan.layers))
    world.image = world.build(plan)
    world.attach(plan)
    world.store.images.tag(world.image.digest, parse_reference("me:1"))
    assert world.verify().ok

    edit(world.store.layers.root(below.diff_id) / "etc/os-release", 0, b"XX")

    assert wrong(world.verify())["other 1/1"].state == "changed on disk"


@pytest.mark.parametrize("settings", [{}, {"configure": ("x",)}, {"bytecode": True}], ids=["", "scripts", "byte code"])
def test_the_plan_of_a_conda_environment_is_that_of_its_lock(settings: dict[str, object]) -> None:
    """Whatever of the settings is part of it."""
    conda = tuple(
        CondaPackage(
            name=name,
            version="3.11",
            build="h0",
            subdir="noarch" if name == "x" else "linux-64",
            filename=f"{name}-3.11-h0.conda",
            sha256="a" * 64,
            channel="tests",
        )
        for name in ("python", "x")
    )
    lock = Lock(
        inputs="0" * 64,
        target=Target(arch="amd64", python="3.11", python_full="3.11.7", glibc="2.41"),
        base=Base(suite="trixie"),
        conda=conda,
        conda_layers=(LayerGroup(name="small-1-of-1", packages=("python", "x")),),
    )
    plan = make_plan(lock, Settings(**settings), (), None)  # type: ignore[arg-type]
    assert list(verifying._plan_problems(plan, lock)) == []
