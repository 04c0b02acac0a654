"""What pull, push and copy mean: where each layer comes from, and what is said when it cannot come."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.registry import FakeRegistry, registry
from fakes.trees import make_image, make_layer
from fakes.wheels import make_wheel

from mlbox.build.rebuild import can_be_left_out, decode_plan, encode_plan, is_harmless
from mlbox.cli.main import run
from mlbox.engine import running, sharing
from mlbox.engine.completing import builder_for
from mlbox.errors import MlboxError, NotFoundError, RegistryError, TrustError, UsageError
from mlbox.events import SILENT
from mlbox.lock.model import Package
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, artifact_of, subject_of
from mlbox.oci.image import ContainerConfig, Image
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.plan.model import BuildPlan, EnvPiece, LayerPlan, ProjectFile, ProjectPiece, WheelPiece
from mlbox.store.store import Store

NAME = "team/x:1"


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry of this process."""
    with registry() as running:
        yield running


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """The empty store of the one who pulls."""
    return Home(tmp_path / "other")


@pytest.fixture(autouse=True)
def _as_on_any_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLBOX_POLICY", str(tmp_path / "policy.toml"))
    (tmp_path / "policy.toml").write_text("")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(sharing, "host_arch", lambda: "amd64")


@pytest.fixture
def plan(home: Home, tmp_path: Path) -> BuildPlan:
    """The plan of a project with one wheel, which is in the store's downloads."""
    store = Store(home)
    wheel = make_wheel(tmp_path, {"demo/data.bin": random.Random(1).randbytes(300_000)})
    sha256 = store.artifacts.add_file(wheel)
    package = Package(
        name="demo", version="1.0", filename=wheel.name, sha256=sha256, size=wheel.stat().st_size, wanted_by=("x:1",)
    )
    piece = WheelPiece(name="demo", version="1.0", filename=wheel.name, sha256=sha256, python="3.11")
    (home.root / "train.py").write_text("print()\n")
    store.close()
    return BuildPlan(
        arch="amd64",
        layers=(
            LayerPlan(name="env", kind="environment", pieces=(EnvPiece(python="3.11", python_full="3.11.2"),)),
            LayerPlan(name="demo", kind="environment", pieces=(piece,)),
            LayerPlan(name="project", kind="project", pieces=(_project(home.root / "train.py"),)),
        ),
        config=ContainerConfig(cmd=("python",)),
        packages=(package,),
    )


def _project(path: Path) -> ProjectPiece:
    import hashlib

    data = path.read_bytes()
    file = ProjectFile(path.name, 0o644, len(data), hashlib.sha256(data).hexdigest())
    return ProjectPiece(workdir="/workspace", python="3.11", files=(file,))


def build(home: Home, plan: BuildPlan, said: BuildPlan | None = None, name: str = "box") -> Image:
    """Build `plan` in a store; what is kept as the image's plan may be another one."""
    store = Store(home)
    image = builder_for(store, plan, plan.layers, SILENT).build(plan)
    store.images.tag(image.digest, parse_reference(name))
    subject = subject_of(image.digest, image.manifest_bytes)
    store.referrers.add(artifact_of(PLAN_TYPE, encode_plan(said or plan)), subject)
    store.referrers.add(artifact_of(LOCK_TYPE, b"version = 1\n"), subject)
    store.close()
    return image


def sources(report: sharing.PullReport) -> list[str]:
    """Return where the layers came from."""
    return [layer.source for layer in report.layers]


def pushed(home: Home, fake: FakeRegistry, **options: Any) -> sharing.PushReport:
    """Push the image 'box'."""
    return sharing.push(home, "box", to=f"{fake.host}/{NAME}", **options)


def pulled(home: Home, fake: FakeRegistry) -> sharing.PullReport:
    """Pull it."""
    return sharing.pull(home, f"{fake.host}/{NAME}")


def test_an_image_with_its_documents(home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry) -> None:
    """Layers from the registry, the same image, and the lock and plan that whoever pulls can show and push on."""
    image = build(home, plan)
    sent = pushed(home, fake)
    report = pulled(other, fake)
    store = Store(other)
    assert report.image == image.digest
    assert report.digest == sent.digest
    assert sources(report) == ["registry"] * 3
    assert report.moved == sent.moved
    assert store.referrers.lock_of(image.digest) == b"version = 1\n"
    assert decode_plan(store.referrers.plan_of(image.digest) or b"") == plan
    store.close()
    again = sharing.push(other, f"{fake.host}/{NAME}")
    assert (again.digest, again.moved, again.attachments) == (sent.digest, 0, sent.attachments)


@pytest.mark.parametrize("part", ["pieces", "artifacts"])
def test_what_is_here_is_used(home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry, part: str) -> None:
    """Pieces, or downloads, make the layer without the network; small ones are fetched."""
    image = build(home, plan)
    pushed(home, fake)
    shutil.copytree(home.root / part, other.root / part, symlinks=True)
    report = pulled(other, fake)
    assert report.image == image.digest
    assert sources(report) == ["registry", part, "registry"]
    assert report.moved < 100_000


def test_a_plan_that_lies(home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry) -> None:
    """What it makes has another diffID, so the blob is fetched; no layer is known by the plan's word."""
    wrong = msgspec.structs.replace(plan.layers[1].pieces[0], requested=True)
    layers = (plan.layers[0], msgspec.structs.replace(plan.layers[1], pieces=(wrong,)), plan.layers[2])
    lying = msgspec.structs.replace(plan, layers=layers)
    image = build(home, plan, lying)
    pushed(home, fake)
    shutil.copytree(home.root / "artifacts", other.root / "artifacts")
    report = pulled(other, fake)
    assert report.image == image.digest
    assert sources(report) == ["registry"] * 3
    assert Store(other).layers.find(plan.layers[1].key) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"arch":"amd64","layers":[],"config":{}}'])
def test_a_plan_that_is_none(home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry, data: bytes) -> None:
    """It is only advice: the image comes from the registry."""
    image = build(home, plan)
    store = Store(home)
    store.referrers.add(artifact_of(PLAN_TYPE, data), subject_of(image.digest, image.manifest_bytes))
    assert pushed(home, fake).attachments
    assert sources(pulled(other, fake)) == ["registry"] * 3


def test_words_of_strangers(plan: BuildPlan) -> None:
    """A piece whose words could become paths, or that another mlbox would unpack otherwise, is not made."""
    wheel = plan.layers[1].pieces[0]
    assert is_harmless(wheel)
    for change in (
        {"name": "../../etc"},
        {"filename": "/etc/passwd"},
        {"python": "3.11/../.."},
        {"sha256": "../../x"},
        {"version": "1\n0"},
        {"rules": 99},
        {"epoch": -1},
    ):
        assert not is_harmless(msgspec.structs.replace(wheel, **change)), change  # type: ignore[arg-type]
    assert not is_harmless(plan.layers[2].pieces[0])


@pytest.mark.parametrize(
    "change",
    [
        {"index": "direct"},
        {"index": "find-links"},
        {"index": "torch"},
        {"url": "http://x/y.whl"},
        {"name": "x @ git+http://x/y"},
        {"filename": "other.whl"},
    ],
)
def test_what_only_the_builder_has_is_not_left_out(plan: BuildPlan, change: dict[str, str]) -> None:
    """A thin image leaves out what everybody can fetch from an index, nothing else."""
    assert can_be_left_out(plan.layers[1], plan)
    assert not can_be_left_out(plan.layers[2], plan)
    package = msgspec.structs.replace(plan.packages[0], **change)  # type: ignore[arg-type]
    assert not can_be_left_out(plan.layers[1], msgspec.structs.replace(plan, packages=(package,)))


def test_a_thin_image(home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry) -> None:
    """It holds the project and how to make the rest; what comes out is the same image."""
    image = build(home, plan)
    sent = pushed(home, fake, thin=True)
    assert (len(sent.layers), len(sent.left_out), sent.thin) == (1, 2, True)
    assert sent.moved < 1000
    shutil.copytree(home.root / "artifacts", other.root / "artifacts")
    report = pulled(other, fake)
    assert report.image == image.digest
    assert sources(report) == ["artifacts", "artifacts", "registry"]
    assert Store(other).images.resolve(f"{fake.host}/team/x@{sent.digest}") == image.digest


def test_a_thin_image_whose_packages_cannot_be_had(
    home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the file, and no image is seen."""
    build(home, plan)
    pushed(home, fake, thin=True)
    monkeypatch.setenv("MLBOX_INDEX_URL", f"{fake.url}/simple")  # an index that has nothing
    with pytest.raises(MlboxError, match=r"is a thin image, and a layer .* cannot be made here: .*demo") as caught:
        pulled(other, fake)
    assert "without --thin" in (caught.value.hint or "")
    assert not Store(other).images.list()


def test_a_thin_image_whose_plan_lies(home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry) -> None:
    """There is no blob to fall back to: an error that says what to ask for."""
    wrong = msgspec.structs.replace(plan.layers[1].pieces[0], requested=True)
    layers = (plan.layers[0], msgspec.structs.replace(plan.layers[1], pieces=(wrong,)), plan.layers[2])
    build(home, plan, msgspec.structs.replace(plan, layers=layers))
    pushed(home, fake, thin=True)
    shutil.copytree(home.root / "artifacts", other.root / "artifacts")
    with pytest.raises(RegistryError, match="thin image") as refused:
        pulled(other, fake)
    assert "--thin" in (refused.value.hint or "")
    assert not Store(other).images.list()


def test_thin_needs_a_plan(home: Home, fake: FakeRegistry) -> None:
    """An image that mlbox did not build has nothing that could be made again."""
    store = Store(home)
    image = make_image(store, make_layer(store, "one", {"a": b"a"}))
    store.images.tag(image.digest, parse_reference("box"))
    with pytest.raises(UsageError, match="no plan"):
        pushed(home, fake, thin=True)


def test_a_policy_is_asked_before_anything_is_fetched(
    home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry, tmp_path: Path
) -> None:
    """A refused image leaves no layer and no manifest."""
    build(home, plan)
    pushed(home, fake)
    (tmp_path / "policy.toml").write_text('default = "deny"\n')
    with pytest.raises(TrustError):
        pulled(other, fake)
    store = Store(other)
    assert not list(store.layers.diff_ids())
    assert not list(store.content.digests())


def test_more_layers_than_docker_takes(
    home: Home, fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is pushed, and said: Docker tells it only to whoever pulls."""
    store = Store(home)
    layer = make_layer(store, "one", {"x": b"1"})
    monkeypatch.setenv("MLBOX_HOME", str(home.root))
    for count, said in ((125, False), (126, True)):
        image = make_image(store, *[layer] * count)
        store.images.tag(image.digest, parse_reference("box"))
        assert run(["push", "box", "--to", f"{fake.host}/{NAME}"]) == 0
        assert ("Docker runs no image of more than 125" in capsys.readouterr().err) is said
    store.close()


def test_names_that_cannot_be_pushed(home: Home, plan: BuildPlan, fake: FakeRegistry) -> None:
    """A digest is what pushing finds out; an unknown name is looked for here, not there."""
    image = build(home, plan)
    with pytest.raises(UsageError, match="digest"):
        sharing.push(home, f"{fake.host}/x@{image.digest}")
    with pytest.raises(NotFoundError):
        sharing.push(home, f"{fake.host}/no/such:1")
    assert not fake.requests


def test_another_architecture(home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry) -> None:
    """Asked for by name it must be there; of a name that has only one image that one is taken, and said."""
    build(home, plan)
    pushed(home, fake)
    with pytest.raises(RegistryError, match="is for amd64, not for arm64"):
        sharing.pull(other, f"{fake.host}/{NAME}", arch="arm64")


Bring = Callable[[str, running.Pull], None]


@pytest.fixture
def bring(other: Home) -> Iterator[Bring]:
    """What `run` does before it makes a container."""
    store = Store(other)
    yield lambda name, pull: running._bring(store, name, pull, lambda: running.nullcontext(SILENT))
    store.close()


def test_run_fetches_what_is_missing(
    home: Home, other: Home, plan: BuildPlan, fake: FakeRegistry, bring: Bring
) -> None:
    """Missing: once; always: each time; never: not at all."""
    image = build(home, plan)
    pushed(home, fake)
    name = f"{fake.host}/{NAME}"
    fake.requests.clear()
    bring(name, "never")
    assert not fake.requests
    bring(name, "missing")
    assert Store(other).images.resolve(name) == image.digest
    fake.requests.clear()
    bring(name, "missing")
    assert not fake.requests
    bring(name, "always")
    assert fake.requests
    bring("sha256:" + "0" * 64, "missing")  # no registry knows an image by that alone


def test_a_slip_of_the_pen(other: Home, plan: BuildPlan, fake: FakeRegistry, bring: Bring) -> None:
    """A name that is nearly one of the store's is proposed, also when a registry was asked for it in vain."""
    store = Store(other)
    image = make_image(store, make_layer(store, "one", {"a": b"a"}))
    store.images.tag(image.digest, parse_reference(f"{fake.host}/{NAME}"))
    with pytest.raises(RegistryError, match=r"no image .* here, and") as missing:
        bring(f"{fake.host}/team/y:1", "missing")
    assert "did you mean" in (missing.value.hint or "")
    with pytest.raises(RegistryError, match="404"):
        bring(f"{fake.host.replace('127.0.0.1', 'localhost')}/quite/another/name:1", "missing")


def test_the_commands(
    home: Home,
    other: Home,
    plan: BuildPlan,
    fake: FakeRegistry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """stdout has the digests, stderr the talk."""
    image = build(home, plan)
    name = f"{fake.host}/{NAME}"
    monkeypatch.setenv("MLBOX_HOME", str(home.root))
    assert run(["push", "-q", "box", "--to", name]) == 0
    done = capsys.readouterr()
    pinned = done.out.strip()
    assert pinned.startswith(f"{fake.host}/team/x@sha256:")
    assert done.err == ""
    monkeypatch.setenv("MLBOX_HOME", str(other.root))
    assert run(["pull", name, pinned]) == 0
    done = capsys.readouterr()
    assert done.out == f"{image.digest}\n" * 2
    assert "3 layers, 3 registry" in done.err
    assert "3 layers, 3 here" in done.err
    assert run(["pull", "--format", "json", name]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["image"] == image.digest
    assert [layer["source"] for layer in report["layers"]] == ["here"] * 3
    assert run(["copy", "-q", name, f"{fake.host}/copy/x:2"]) == 0
    assert capsys.readouterr().out.strip() == pinned.partition("@")[2]
    assert run(["push", "a", "b", "--to", name]) == 2
    assert run(["pull", f"{fake.host}/no/such:1"]) == 1
    assert "hint:" in capsys.readouterr().err
