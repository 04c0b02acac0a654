"""What stands on an image of a registry: its layers as they are, part of its configuration, and nothing of Debian's."""

import msgspec

from mlbox.codec import canonical_json, key_of
from mlbox.lock.model import Base, BaseLayer, Deb, LayerGroup, Lock, Package, Target
from mlbox.oci.digest import DiffID, Digest
from mlbox.plan.model import (
    AdditionPiece,
    BuildPlan,
    BuiltWheelPiece,
    BytecodePiece,
    ConfiguredPiece,
    EnvPiece,
    ImageLayerPiece,
    ProjectFile,
)
from mlbox.plan.planner import make_plan
from mlbox.plan.render import LayerState, as_text
from mlbox.project.model import Settings

NAME = "docker.io/library/python:3.12-slim"
FILES = (ProjectFile("train.py", 0o644, 3, "a" * 64),)
NUMPY = Package(name="numpy", version="1.0", filename="numpy-1.0-py3-none-any.whl", sha256="b" * 64)
ODD = Package(name="odd", version="1.0", filename="odd-1.0.tar.gz", sha256="c" * 64)
GIT = Deb(name="git", version="1", arch="amd64", path="p", sha256="d" * 64, size=1, suite="bookworm", role="system")
DEBIAN = EnvPiece(python="3.11", python_full="3.11.2")


def sha(digit: str) -> Digest:
    """A made-up digest."""
    return Digest(f"sha256:{digit * 64}")


BASE = Base(
    kind="image",
    suite="bookworm",
    reference=NAME,
    digest=sha("1"),
    manifest=sha("2"),
    config=sha("3"),
    home="/usr/local/bin",
    user="app",
    env=("PATH=/usr/local/bin:/bin", "PYTHONHOME=/x", "LD_LIBRARY_PATH=/usr/local/cuda/lib64", "LANG=de_DE.UTF-8"),
    labels=("maintainer=a=b", "org.opencontainers.image.title=theirs"),
    layers=tuple(BaseLayer(digest=sha(a), diff_id=DiffID(sha(b)), size=7) for a, b in ("4a", "5b")),
)


def lock(base: Base = BASE, *packages: Package, debs: tuple[Deb, ...] = ()) -> Lock:
    """A lock of `packages` on `base`."""
    return Lock(
        inputs="sha256:" + "0" * 64,
        target=Target(arch="amd64", python="3.12", python_full="3.12.4", glibc="2.36"),
        base=base,
        packages=packages,
        layers=(LayerGroup(name="all", packages=tuple(one.name for one in packages)),) if packages else (),
        debs=debs,
        system_packages=tuple(deb.name for deb in debs),
    )


def plan_of(one: Lock, settings: Settings | None = None) -> BuildPlan:
    """The plan of `one` with a project of one file."""
    return make_plan(one, settings or Settings(), FILES, None)


def changed(**fields: object) -> Base:
    """The base with other fields."""
    return msgspec.structs.replace(BASE, **fields)


def test_its_layers_come_first() -> None:
    """Layer by layer, by diffID alone: how a registry packs them moves nothing."""
    plan = plan_of(lock(BASE, NUMPY))
    repacked = changed(layers=tuple(msgspec.structs.replace(one, digest=sha("9"), size=1) for one in BASE.layers))

    assert [layer.kind for layer in plan.layers] == ["base", "base", "environment", "environment", "project"]
    assert [layer.pieces for layer in plan.layers[:2]] == [
        (ImageLayerPiece(diff_id=one.diff_id),) for one in BASE.layers
    ]
    assert [layer.name for layer in plan.layers[:2]] == ["python:3.12-slim 1/2", "python:3.12-slim 2/2"]
    assert plan.base == BASE
    assert plan_of(lock(repacked, NUMPY)).key == plan.key


def test_its_configuration_is_part_of_the_key() -> None:
    """It brings the history, which becomes part of the image."""
    assert plan_of(lock(changed(config=sha("8")))).key != plan_of(lock()).key


def test_the_epoch_moves_no_layer_of_others() -> None:
    """Times are ours to set in our own layers only."""
    other = msgspec.structs.replace(lock(), epoch=1_700_000_000)

    assert [one.key for one in plan_of(other).layers[:2]] == [one.key for one in plan_of(lock()).layers[:2]]


def test_what_is_kept_of_its_configuration() -> None:
    """Environment, user and labels; PATH behind mlbox's, no PYTHONHOME, and who it is instead of who it says it is."""
    config = plan_of(lock(), Settings(env={"A": "b"})).config

    assert config.env == (
        "PATH=/opt/mlbox/env/bin:/usr/local/bin:/bin",
        "LANG=de_DE.UTF-8",
        "VIRTUAL_ENV=/opt/mlbox/env",
        "PYTHONUNBUFFERED=1",
        "LD_LIBRARY_PATH=/usr/local/cuda/lib64",
        "A=b",
    )
    assert config.user == "app"
    assert plan_of(lock(), Settings(user="0")).config.user == "0"
    assert config.labels == {
        "maintainer": "a=b",
        "org.opencontainers.image.base.name": NAME,
        "org.opencontainers.image.base.digest": BASE.digest,
        "dev.mlbox.accelerator": "cpu",
        "dev.mlbox.python": "3.12.4",
    }


def test_pieces_name_the_interpreter_and_what_they_are_built_in() -> None:
    """Everything that is made with the base's Python, or in its root file system, has it in its key."""
    settings = Settings(bytecode=True, configure=("git",))
    pieces = [piece for layer in plan_of(lock(BASE, ODD, debs=(GIT,)), settings).layers for piece in layer.pieces]
    base = tuple(one.diff_id for one in BASE.layers)
    built = next(piece for piece in pieces if isinstance(piece, BuiltWheelPiece))
    compiled = next(piece for piece in pieces if isinstance(piece, BytecodePiece))
    added = next(piece for piece in pieces if isinstance(piece, AdditionPiece))

    assert next(piece for piece in pieces if isinstance(piece, EnvPiece)).home == "/usr/local/bin"
    assert (built.home, built.base, built.env) == ("/usr/local/bin", base, BASE.env)
    assert (compiled.home, compiled.interpreter) == ("/usr/local/bin", f"/usr/local/bin/python3.12 of {BASE.config}")
    assert (added.base, [deb.name for deb in added.debs]) == (base, ["git"])
    assert next(piece for piece in pieces if isinstance(piece, ConfiguredPiece)).base == base


def test_packages_of_the_base_need_no_layer() -> None:
    """Without debs there is no system layer; with them it says why."""
    assert "system" not in {layer.kind for layer in plan_of(lock()).layers}
    without_python = lock(changed(home=""), debs=(GIT,))
    layer = next(layer for layer in plan_of(without_python).layers if layer.kind == "system")
    assert layer.reason == "git, python3 and what they need beyond the base: 1 packages"


def test_keys_of_debian_images_are_what_they_were() -> None:
    """What only bases of a registry need is no part of the key of others, so nothing is built again."""
    old = {"piece": "env", "epoch": 315532800, "rules": 1, "python": "3.11", "python_full": "3.11.2"}
    debian = lock(Base(suite="bookworm"), ODD, debs=(msgspec.structs.replace(GIT, role="base"),))
    text = canonical_json(plan_of(debian, Settings(bytecode=True, configure=("git",))).layers)

    assert DEBIAN.key == key_of(old)
    assert not [word for word in (b'"home"', b'"base":[', b'"env":[') if word in text]


def test_a_plan_travels() -> None:
    """What is written as JSON is read back equal, unset fields too."""
    for one in (lock(BASE, ODD, debs=(GIT,)), lock(Base(suite="bookworm"), ODD)):
        plan = plan_of(one, Settings(bytecode=True))
        assert msgspec.json.decode(canonical_json(plan), type=BuildPlan) == plan


def test_the_text_names_the_image_and_what_is_to_fetch() -> None:
    """The digest is there to compare, short enough to read."""
    plan = plan_of(lock())
    text = as_text(plan, {plan.layers[0].key: LayerState(fetch=33_000_000)}, ())

    assert f"to fetch, 33.0 MB; {NAME}@sha256:111111111111…" in text
