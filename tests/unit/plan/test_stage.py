"""What sources are built on, and that the image never is."""

import msgspec
import pytest
from msgspec import UNSET

from mlbox.lock.model import Base, BaseLayer, Deb, LayerGroup, Lock, Package, Target
from mlbox.oci.digest import DiffID, Digest
from mlbox.plan.model import AdditionPiece, BuildPlan, RootfsPiece
from mlbox.plan.planner import make_plan
from mlbox.plan.render import as_json, as_text
from mlbox.plan.stage import built_pieces, ground_of, stage_of
from mlbox.project.model import Settings


def deb(name: str, role: str, version: str = "1") -> Deb:
    return Deb(
        name=name,
        version=version,
        arch="amd64",
        path=f"pool/{name}.deb",
        sha256=(name + version).encode().hex().ljust(64, "0"),
        size=1,
        suite="bookworm",
        role=role,  # type: ignore[arg-type]
    )


def image(letter: str) -> Base:
    digest = Digest("sha256:" + letter * 64)
    return Base(
        kind="image",
        suite="bookworm",
        reference=f"docker.io/x/{letter}:1",
        digest=digest,
        manifest=digest,
        config=digest,
        layers=(BaseLayer(digest=digest, diff_id=DiffID(digest), size=1),),
    )


SOURCE = Package(name="demo", version="1.0", filename="demo-1.0.tar.gz", sha256="0" * 64, compiled=("c",))
PLAIN = Lock(
    inputs="x",
    target=Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36"),
    base=Base(suite="bookworm"),
    packages=(SOURCE,),
    layers=(LayerGroup(name="small", packages=("demo",)),),
    debs=(deb("libc6", "base"), deb("git", "system")),
)
STAGED = msgspec.structs.replace(PLAIN, build_debs=(deb("gcc", "build"), deb("libc6", "build", "2")))


def plan(lock: Lock) -> BuildPlan:
    return make_plan(lock, Settings(), (), None)


def test_a_lock_without_a_stage_has_the_keys_it_always_had() -> None:
    (piece,) = built_pieces(plan(PLAIN))
    assert piece.build_debs is UNSET
    assert stage_of(piece) is None
    data = msgspec.json.encode(piece)
    assert b"build_debs" not in data
    assert b"build_base" not in msgspec.json.encode(plan(PLAIN))
    bare = msgspec.structs.replace(piece, source=msgspec.structs.replace(piece.source, compiled=()))
    assert bare.key == "94d8dfa45cecf6ede5b58932fe1f4c454a0064e9f567e9424619fe79dec420a9"


def test_the_stage_lies_over_the_image_and_is_none_of_its_layers() -> None:
    staged = plan(STAGED)
    (piece,) = built_pieces(staged)
    ground = ground_of(staged, piece)

    assert [layer.name for layer in ground] == ["debian bookworm", "system packages", "build stage"]
    assert isinstance(rootfs := ground[-1].pieces[-1], RootfsPiece)
    assert [(one.name, one.version) for one in rootfs.debs] == [("gcc", "1"), ("git", "1"), ("libc6", "2")]
    names = {getattr(one, "name", "") for layer in staged.layers for one in layer.pieces}
    assert "gcc" not in names
    # Only the layer with the package moves when the stage does, and files of the stage can be fetched.
    before = {layer.name: layer.key for layer in plan(PLAIN).layers}
    moved = [layer.name for layer in staged.layers if layer.key != before[layer.name]]
    assert moved == ["small"]
    assert {one.name for one in staged.debs} == {"libc6", "git", "gcc"}


def test_on_an_image_the_stage_is_added_to_its_layers() -> None:
    lock = msgspec.structs.replace(STAGED, base=image("a"))
    staged = plan(lock)
    (piece,) = built_pieces(staged)
    stage = stage_of(piece)
    assert stage
    assert isinstance(added := stage.pieces[-1], AdditionPiece)
    assert added.base == (DiffID("sha256:" + "a" * 64),)
    assert [layer.name for layer in ground_of(staged, piece)] == ["a:1 1/1", "system packages", "build stage"]


@pytest.mark.parametrize("debs", [(), (deb("gcc", "build"),)], ids=["bare", "with debs"])
def test_a_build_base_takes_the_place_of_all(debs: tuple[Deb, ...]) -> None:
    lock = msgspec.structs.replace(PLAIN, build_base=image("b"), build_debs=debs)
    staged = plan(lock)
    (piece,) = built_pieces(staged)
    assert piece.debs == ()
    assert piece.base == (DiffID("sha256:" + "b" * 64),)
    assert [layer.name for layer in ground_of(staged, piece)] == ["build base 1", *(["build stage"] if debs else [])]
    assert staged.build_base == lock.build_base


def test_the_plan_says_what_is_compiled_and_how() -> None:
    one = msgspec.structs.replace(
        SOURCE, compiled=("c", "cuda"), gpu_architectures=("8.0",), build_gpu=True, build_network=True
    )
    lock = msgspec.structs.replace(STAGED, packages=(one,), build_base=image("b"))
    text = as_text(plan(lock), {}, ())
    assert "built in a container, pinned by its output: demo 1.0 (c, cuda; for 8.0; with the host's GPUs" in text
    assert "compiled with the image docker.io/x/b:1@sha256:" in text
    assert "and 2 Debian packages, which are not in the image" in text
    assert "build stage" in as_json(plan(lock), {}, ())
    assert "container" not in as_text(plan(msgspec.structs.replace(PLAIN, packages=(), layers=())), {}, ())
