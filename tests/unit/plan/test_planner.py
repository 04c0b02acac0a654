"""The plan is a function of the lock, the settings and the files, and moves only with what it stands for."""

import json
from pathlib import Path

import msgspec
import pytest

from mlbox.errors import LockError
from mlbox.lock.model import Base, Deb, LayerGroup, Lock, Package, Target
from mlbox.plan.model import BuildPlan, BuiltWheelPiece, BytecodePiece, ProjectFile, ProjectPiece, WheelPiece
from mlbox.plan.planner import direct_url, make_plan
from mlbox.plan.render import LayerState, as_json, as_text
from mlbox.project.model import Health, Settings, Source, Task
from mlbox.project.model import Package as ProjectPackage

FILES = (ProjectFile("train.py", 0o644, 3, "a" * 64),)


def deb(name: str, role: str = "base") -> Deb:
    """A deb with made-up contents."""
    return msgspec.convert(
        {
            "name": name,
            "version": "1-1",
            "arch": "amd64",
            "path": f"pool/{name}_1-1_amd64.deb",
            "sha256": name[0] * 64,
            "size": 10,
            "suite": "bookworm",
            "role": role,
        },
        Deb,
    )


def package(name: str, **fields: object) -> Package:
    """A wheel with made-up contents."""
    defaults = {"version": "1.0", "filename": f"{name}-1.0-py3-none-any.whl", "sha256": name[0] * 64, "size": 5}
    return msgspec.convert(
        {"name": name, **defaults, **{key.replace("_", "-"): value for key, value in fields.items()}}, Package
    )


def lock(*packages: Package, layers: tuple[LayerGroup, ...] | None = None, debs: tuple[Deb, ...] = ()) -> Lock:
    """A lock of `packages`, all in one layer unless said otherwise."""
    groups = layers or (LayerGroup(name="small", packages=tuple(one.name for one in packages)),)
    return Lock(
        inputs="sha256:" + "0" * 64,
        target=Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36"),
        base=Base(suite="bookworm"),
        packages=packages,
        layers=groups if packages else (),
        debs=(deb("libc6"), *debs),
    )


def plan_of(one: Lock, settings: Settings | None = None, package: ProjectPackage | None = None) -> BuildPlan:
    """The plan of `one` with a project of one file."""
    return make_plan(one, settings or Settings(), FILES, package)


def test_layers_stand_in_the_order_of_change() -> None:
    """Base, system, environment, project: what changes most often is last."""
    plan = plan_of(lock(package("numpy"), debs=(deb("git", "system"),)))

    assert [layer.kind for layer in plan.layers] == ["base", "system", "environment", "environment", "project"]


def test_a_changed_version_moves_one_layer() -> None:
    """Only the group that holds the changed package gets another key."""
    groups = (LayerGroup(name="a", packages=("numpy",)), LayerGroup(name="b", packages=("torch",)))
    before = plan_of(lock(package("numpy"), package("torch"), layers=groups))
    after = plan_of(lock(package("numpy"), package("torch", version="2.0", sha256="f" * 64), layers=groups))

    moved = [one.name for one, two in zip(before.layers, after.layers, strict=True) if one.key != two.key]

    assert moved == ["b"]
    assert before.key != after.key


def test_where_a_requirement_stands_does_not_matter() -> None:
    """Line numbers and dependants are for people: they move no layer."""
    before = plan_of(lock(package("numpy", wanted_by=("requirements.txt:1",))))
    after = plan_of(lock(package("numpy", wanted_by=("requirements.txt:9",), requires=("torch",))))

    assert before.key == after.key


def test_epoch_reaches_every_piece() -> None:
    """A lock with another epoch shares no piece with one without."""
    one = lock(package("numpy"), debs=(deb("git", "system"),))
    before, after = plan_of(one), plan_of(msgspec.structs.replace(one, epoch=1_700_000_000))

    assert not {layer.key for layer in before.layers} & {layer.key for layer in after.layers}


def test_a_source_distribution_is_built_in_its_root_file_system() -> None:
    """What is no wheel becomes a piece that names its build requirements and its debs."""
    one = msgspec.structs.replace(
        lock(package("odd", filename="odd-1.0.tar.gz")), build_packages=(package("setuptools"),)
    )
    piece = plan_of(one).layers[-2].pieces[0]

    assert isinstance(piece, BuiltWheelPiece)
    assert [needed.name for needed in piece.build_packages] == ["setuptools"]
    assert [needed.name for needed in piece.debs] == ["libc6"]


def test_config_says_how_to_start() -> None:
    """The serve task is the image's default, its port is exposed, settings win over mlbox's own variables."""
    serve = Task(command=("uvicorn", "app:app"), port=8000, health=Health(path="/health"))
    plan = plan_of(lock(), Settings(serve=serve, env={"LANG": "de_DE.UTF-8", "A": "b"}))

    assert plan.config.cmd == ("uvicorn", "app:app")
    assert plan.config.exposed_ports == {"8000/tcp": {}}
    assert "LANG=de_DE.UTF-8" in plan.config.env
    assert "LANG=C.UTF-8" not in plan.config.env
    assert any(item.startswith("PATH=/opt/mlbox/env/bin:") for item in plan.config.env)


def test_direct_urls_are_recorded() -> None:
    """A git dependency says its commit as pip would (PEP 610); one of an index says nothing."""
    git = package("tool", url="https://example.org/tool.git", commit="c" * 40, filename="tool-c.git", sha256="")

    assert json.loads(direct_url(git)) == {
        "url": "https://example.org/tool.git",
        "vcs_info": {"vcs": "git", "commit_id": "c" * 40},
    }
    assert direct_url(package("numpy")) == ""


def test_requested_is_what_the_project_names() -> None:
    """Only packages the project itself wants are marked as pip's REQUESTED."""
    pieces = plan_of(lock(package("numpy", wanted_by=("requirements.txt:1",)), package("six"))).layers[-2].pieces

    assert [piece.requested for piece in pieces if isinstance(piece, WheelPiece)] == [True, False]


@pytest.mark.parametrize("render", [as_text, as_json])
def test_rendering_names_layers_and_sources(render: object) -> None:
    """Both forms show each layer, its state and which spec files counted."""
    plan = plan_of(lock(package("numpy")))
    states = {plan.layers[0].key: LayerState(built=True, size=5_000_000)}
    text = render(plan, states, (Source(path="requirements.txt", used=True, reason="because"),))  # type: ignore[operator]

    assert all(layer.name in text for layer in plan.layers)
    assert "requirements.txt" in text
    assert "because" in text


def test_json_is_the_plan() -> None:
    """The JSON form parses and carries the keys the build uses."""
    plan = plan_of(lock(package("numpy")))
    document = json.loads(as_json(plan, {}, ()))

    assert document["key"] == plan.key
    assert [layer["key"] for layer in document["layers"]] == [layer.key for layer in plan.layers]


def test_a_package_is_installed_with_its_files() -> None:
    """The project's distribution is part of the project's piece, so its metadata moves only that layer."""
    mine = ProjectPackage(name="mine", version="1")
    without, with_package = plan_of(lock()), plan_of(lock(), package=mine)
    piece = with_package.layers[-1].pieces[0]

    assert isinstance(piece, ProjectPiece)
    assert piece.package == mine
    assert [one.key for one in without.layers[:-1]] == [one.key for one in with_package.layers[:-1]]


def test_byte_code_is_asked_for() -> None:
    """Each wheel's byte code shares its layer, so that a changed wheel moves one layer; the default has none."""
    one = lock(package("numpy"), debs=(deb("libpython3.11-stdlib"),))
    plain, compiled = plan_of(one), plan_of(one, Settings(bytecode=True))
    of = [piece.of for layer in compiled.layers for piece in layer.pieces if isinstance(piece, BytecodePiece)]

    assert [piece.name for piece in of if not isinstance(piece, BuiltWheelPiece)] == ["libpython3.11-stdlib", "numpy"]
    assert of[1] == compiled.layers[-2].pieces[0]
    assert not any(isinstance(piece, BytecodePiece) for layer in plain.layers for piece in layer.pieces)
    assert plain.layers[0].key == compiled.layers[0].key


def test_configured_packages_must_be_there() -> None:
    """Scripts of a package that the image lacks cannot run; those of one it has get a layer of their own."""
    with pytest.raises(LockError, match="git, which is not in the image"):
        plan_of(lock(), Settings(configure=("git",)))

    kinds = [layer.kind for layer in plan_of(lock(debs=(deb("git", "system"),)), Settings(configure=("git",))).layers]
    assert kinds == ["base", "system", "configured", "environment", "project"]


def test_plan_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values give the same plan in any folder."""
    before = plan_of(lock(package("numpy"))).key
    monkeypatch.chdir(tmp_path)

    assert plan_of(lock(package("numpy"))).key == before
