"""One lock for several accelerators, as a user types it: real mirror, index and runc, builds of torch made here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.index import make_wheel
from fakes.program import Program

pytestmark = pytest.mark.integration

BIG = 9 << 20  # large enough for a layer of its own


@pytest.fixture(scope="module")
def mlbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program in a project for three accelerators, whose image for each says which it is."""
    folder = tmp_path_factory.mktemp("accelerators")
    project, wheels = folder / "project", folder / "project/wheels"
    wheels.mkdir(parents=True)
    blas = {"cpu": [], "cu126": ["nvidia-blas==12.6"], "cu130": ["nvidia-blas==13.0"]}
    for accelerator, requires in blas.items():
        files = {"torch/__init__.py": f"build = {accelerator!r}\n".encode(), "torch/lib.so": bytes(BIG)}
        for version in ("2.8.0", "2.9.1"):
            name, data = make_wheel("torch", f"{version}+{accelerator}", requires=["six", *requires], files=files)
            (wheels / name).write_bytes(data)
    for version in ("12.6", "13.0"):
        name, data = make_wheel("nvidia-blas", version, files={"nvidia/blas.py": version.encode()})
        (wheels / name).write_bytes(data)
    (project / "pyproject.toml").write_text(
        '[project]\nname = "demo"\nversion = "1"\ndependencies = ["torch", "idna==3.10"]\n'
        '[project.optional-dependencies]\ncu126 = ["click==8.1.7"]\n'
        '[tool.mlbox]\npython = "3.11"\naccelerators = ["cpu", "cu126", "cu130"]\nfind-links = ["wheels"]\n'
        'ignore = ["wheels/"]\n'
    )
    (project / "which.py").write_text("import torch; print('build', torch.build)\n")
    program = Program(folder / "home", project)
    program.run("build", "--accelerator", "all", "-t", "team/demo:1")
    yield program
    program.run("prune", "--built", "-f", code=None)


def diff_ids(mlbox: Program, name: str) -> list[str]:
    inspected = json.loads(mlbox.run("inspect", name).stdout)
    found = inspected[0] if isinstance(inspected, list) else inspected
    return list(found["config"]["rootfs"]["diff_ids"])


def test_each_image_has_its_build_and_shares_the_other_layers(mlbox: Program) -> None:
    layers = {name: diff_ids(mlbox, f"team/demo:1-{name}") for name in ("cpu", "cu126", "cu130")}
    for name in ("cu126", "cu130"):
        shared = set(layers["cpu"]) & set(layers[name])
        # base, environment, idna and pip, the project; not torch, and what belongs to CUDA
        assert len(shared) == len(layers["cpu"]) - 1 == len(layers[name]) - 2
        assert layers[name][:3] == layers["cpu"][:3]
    assert len({tuple(found) for found in layers.values()}) == 3


def test_this_host_runs_its_own_and_any_that_is_asked_for(mlbox: Program) -> None:
    ran = mlbox.run("run", "--rm", "team/demo:1", "python", "which.py")
    assert ran.stdout == "build cpu\n"
    assert "accelerator cpu: this host has no NVIDIA driver" in ran.stderr
    ran = mlbox.run("run", "--rm", "--accelerator", "cu126", "team/demo:1", "python", "-c", "import torch, click")
    assert "accelerator" not in ran.stderr


@pytest.mark.parametrize(
    "line",
    ["check", "verify", "why NAME torch", "diff NAME team/demo:1-cu126", "inspect", "du", "history", "sbom"],
)
def test_commands_that_look_at_an_image_take_the_one_that_runs_here(mlbox: Program, line: str) -> None:
    """And say so, as `run` does."""
    words = line.split() if " " in line else [line, "NAME"]
    told = mlbox.run(*(word.replace("NAME", "team/demo:1") for word in words))
    named = mlbox.run(*(word.replace("NAME", "team/demo:1-cpu") for word in words))
    assert "accelerator cpu: this host has no NVIDIA driver; the image is team/demo:1-cpu" in told.stderr
    assert "accelerator" not in named.stderr
    assert told.stdout == named.stdout


def test_a_project_is_checked_and_verified_by_the_image_that_runs_here(mlbox: Program) -> None:
    checked = mlbox.run("check", "team/demo:1", "--accelerator", "cu126", "--driver", "560.35")
    assert "driver 560.35 runs CUDA 12.6 in full" in checked.stdout
    exported = mlbox.run("export", "team/demo:1", "--format", "requirements")
    assert "torch==2.9.1+cpu" in exported.stdout
    assert "the image is team/demo:1-cpu" in mlbox.run("verify", "mlbox.lock", "team/demo:1").stderr


def test_a_build_says_why_it_takes_which(mlbox: Program) -> None:
    built = mlbox.run("build", "-t", "team/demo:host")
    assert "accelerator cpu: this host has no NVIDIA driver" in built.stderr
    assert diff_ids(mlbox, "team/demo:host") == diff_ids(mlbox, "team/demo:1-cpu")
    other = mlbox.run("build", "--accelerator", "cu130", "-t", "team/demo:other")
    assert other.stdout.split()[-1] in mlbox.run("images", "--format", "json").stdout
    assert diff_ids(mlbox, "team/demo:other") == diff_ids(mlbox, "team/demo:1-cu130")


def test_the_same_lock_comes_out_again_and_holds_each_shared_package_once(mlbox: Program, tmp_path: Path) -> None:
    path = mlbox.cwd / "mlbox.lock"
    before = path.read_bytes()
    path.rename(tmp_path / "before")
    try:
        mlbox.run("lock")
        assert path.read_bytes() == before
    finally:
        (tmp_path / "before").rename(path)
    assert before.count(b'name = "idna"') == before.count(b'name = "click"') == 1
    assert before.count(b'name = "torch"\nversion') == 3


def test_an_image_is_made_again_from_the_lock_of_all(mlbox: Program) -> None:
    for name in ("cpu", "cu126"):
        verified = mlbox.run("verify", "mlbox.lock", f"team/demo:1-{name}")
        assert "equal" in verified.stdout
        assert "equal" in mlbox.run("verify", f"team/demo:1-{name}").stdout


def test_no_byte_is_twice_in_the_store(mlbox: Program) -> None:
    """A file that two images have is one file; of three images only what differs counts again."""
    seen: dict[int, int] = {}
    named = 0
    for path in (mlbox.home / "layers").rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            seen[status.st_ino] = status.st_size
            named += status.st_size
    one = sum(
        path.stat().st_size for path in (mlbox.home / "pieces").rglob("*") if path.is_file() and not path.is_symlink()
    )
    assert sum(seen.values()) <= one * 1.02


def test_check_takes_what_suits_the_driver(mlbox: Program) -> None:
    for driver, name in (("560.35.03", "cu126"), ("580.65.06", "cu130"), ("470.57.02", "cpu")):
        assert f"accelerator {name}: " in mlbox.run("check", ".", "--driver", driver).stderr


def test_a_lock_for_others_says_what_would_move(mlbox: Program) -> None:
    moved = mlbox.run("lock", "--diff", "--accelerator", "cpu", "--accelerator", "cu130")
    assert moved.stdout.splitlines()[0] == "~ setting accelerators cpu, cu126, cu130 -> cpu, cu130"
    assert "- click 8.1.7 [cu126]" in moved.stdout
    assert "- torch 2.9.1+cu126 [cu126]" in moved.stdout
    assert "idna" not in moved.stdout


REFUSED = {
    "not-in-the-lock": (["build", "--accelerator", "cu118"], 2, "not for accelerator 'cu118'; it is for cpu, cu126"),
    "no-accelerator": (["lock", "--accelerator", "gpu"], 1, "--accelerator: unknown accelerator 'gpu'"),
    "twice": (["lock", "--accelerator", "cpu", "--accelerator", "cpu"], 1, "'cpu' stands there twice"),
    "stale": (["plan", "--extra", "cu126"], 1, "extras"),
    "all-in-one-file": (["build", "--accelerator", "all", "-o", "x.tar"], 2, "one for each accelerator"),
    "one-image": (["check", "team/demo:1-cpu", "--accelerator", "cpu"], 1, "did you mean team/demo:1-cpu"),
}


@pytest.mark.parametrize(("words", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be(mlbox: Program, words: list[str], code: int, message: str) -> None:
    before = (mlbox.cwd / "mlbox.lock").read_bytes()
    assert message in mlbox.run(*words, code=code).stderr
    assert (mlbox.cwd / "mlbox.lock").read_bytes() == before


def test_an_accelerator_without_builds_is_named(mlbox: Program) -> None:
    """No folder and no index has torch for it."""
    nowhere = Program(mlbox.home, mlbox.cwd, MLBOX_TORCH_INDEX="file:///nowhere")
    refused = nowhere.run("lock", "--diff", "--accelerator", "cpu", "--accelerator", "cu128", code=1).stderr
    assert "the index of torch builds for accelerator 'cu128' has no torch: file:///nowhere/cu128" in refused


def test_a_lock_is_stale_when_the_project_wants_others(mlbox: Program) -> None:
    path = mlbox.cwd / "pyproject.toml"
    text = path.read_text()
    path.write_text(text.replace('"cpu", "cu126", "cu130"', '"cpu", "cu126"'))
    try:
        refused = mlbox.run("build", code=1).stderr
        assert "stale: it is for cpu, cu126, cu130, and the project wants cpu, cu126" in refused
    finally:
        path.write_text(text)


def test_accelerators_of_the_command_line_stay_until_others_are_named(mlbox: Program, tmp_path: Path) -> None:
    """A project that declares none takes those of its lock."""
    (tmp_path / "requirements.txt").write_text("torch\n")
    (tmp_path / "mlbox.toml").write_text(f'python = "3.11"\nfind-links = ["{mlbox.cwd}/wheels"]\n')
    here = Program(mlbox.home, tmp_path)
    here.run("lock", "--accelerator", "cu126", "--accelerator", "cpu")
    first = (tmp_path / "mlbox.lock").read_text()
    assert 'accelerators = ["cu126", "cpu"]' in first
    assert "small-of-some" in here.run("plan", "--accelerator", "cu126").stdout
    (tmp_path / "requirements.txt").write_text("torch\nidna\n")
    assert "stale" in here.run("plan", code=1).stderr
    here.run("lock")
    assert 'accelerators = ["cu126", "cpu"]' in (tmp_path / "mlbox.lock").read_text()
    here.run("lock", "--accelerator", "cpu")
    assert "cu126" not in (tmp_path / "mlbox.lock").read_text()
