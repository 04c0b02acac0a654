"""What a project asks for on each of several accelerators, and what makes its lock stale."""

from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.discover import inputs_digest, load_project
from mlbox.project.model import Project

PYPROJECT = """
[project]
name = "demo"
version = "1"
dependencies = ["six"]
[project.optional-dependencies]
cu126 = ["only-cuda"]
"rocm7.1" = ["only-rocm"]
more = ["idna"]
[tool.mlbox]
accelerators = ["cpu", "cu126", "rocm7.1"]
"""


def load(root: Path, text: str = PYPROJECT, **more: object) -> Project:
    (root / "pyproject.toml").write_text(text)
    return load_project(root, **more)  # type: ignore[arg-type]


def test_an_extra_called_like_an_accelerator_belongs_to_it_alone(tmp_path: Path) -> None:
    project = load(tmp_path)
    assert {name: [one.text for one in ones] for name, ones in project.variants.items()} == {
        "cu126": ["only-cuda"],
        "rocm7.1": ["only-rocm"],
    }
    cpu, cuda = project.for_accelerator("cpu"), project.for_accelerator("cu126")
    assert [one.text for one in cpu.requirements] == ["six"]
    assert [one.text for one in cuda.requirements] == ["six", "only-cuda"]
    assert (cuda.settings.accelerator, cuda.settings.accelerators, cuda.settings.extras) == ("cu126", (), ("cu126",))


def test_the_command_line_names_others(tmp_path: Path) -> None:
    project = load(tmp_path, accelerators=["cu126"])
    assert (project.settings.accelerators, list(project.variants)) == (("cu126",), ["cu126"])
    single = load(tmp_path, PYPROJECT.replace("accelerators = ", "accelerator = 'cu130'\n#"), accelerators=["cpu"])
    assert (single.settings.accelerator, single.settings.accelerators) == ("cpu", ("cpu",))
    with pytest.raises(ProjectError, match=r"^--accelerator: unknown accelerator 'gpu'"):
        load(tmp_path, accelerators=["gpu"])


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ('"cu126", "rocm7.1"]', '"cu126"]', True),
        ('"cpu", "cu126"', '"cu126", "cpu"', True),
        ("only-cuda", "only-cuda>1", True),
        ('more = ["idna"]', 'more = ["idna>1"]', False),
        ("[tool.mlbox]", '[tool.mlbox]\naccelerator-indexes = { cu126 = "https://i.invalid" }', True),
    ],
    ids=["fewer", "order", "its-extra", "another-extra", "index"],
)
def test_what_makes_a_lock_stale(tmp_path: Path, old: str, new: str, stale: bool) -> None:
    before = inputs_digest(load(tmp_path))
    assert (inputs_digest(load(tmp_path, PYPROJECT.replace(old, new))) != before) == stale


def test_passwords_do_not_count(tmp_path: Path) -> None:
    text = PYPROJECT + 'accelerator-indexes = { cu126 = "https://USER@i.invalid/whl" }\n'
    digests = {inputs_digest(load(tmp_path, text.replace("USER", user))) for user in ("a:b", "c:d")}
    assert len(digests) == 1


def test_one_accelerator_is_digested_as_ever(tmp_path: Path) -> None:
    """Locks that are older than several accelerators stay fresh."""
    one = load(tmp_path, PYPROJECT.replace('accelerators = ["cpu", "cu126", "rocm7.1"]', ""))
    assert one.variants == {}
    assert inputs_digest(one) == inputs_digest(load(tmp_path, PYPROJECT.partition("[tool.mlbox]")[0]))
