"""Specs that contradict one another are told, with both places."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from mlbox.project.conflict import disagreements, overlap
from mlbox.project.discover import load_project

PROJECT = '[project]\nname = "x"\nversion = "1"\ndependencies = ["numpy>=2", "torch>=2.1", "scipy", "tqdm==4.*"]\n'


def told(root: Path, files: dict[str, str]) -> list[str]:
    """What is told about a project with these files."""
    for name, content in files.items():
        (root / name).write_text(content)
    return disagreements(load_project(root))


def test_both_places_are_named(tmp_path: Path) -> None:
    """What cannot hold together one by one, what is only different in one line."""
    requirements = "numpy<2\ntorch==2.5.1\nscipy\nother==1\ntqdm==4.*\n"
    assert told(tmp_path, {"pyproject.toml": PROJECT, "requirements.txt": requirements}) == [
        "pyproject.toml [project.dependencies] asks for numpy>=2, and requirements.txt:1 for numpy<2: the first counts",
        "requirements.txt has other ranges than pyproject.toml for torch: what pyproject.toml says counts",
    ]


def test_every_kind_of_spec(tmp_path: Path) -> None:
    """Whatever does not count is compared; what is broken or says the same is not told."""
    files = {
        "requirements.txt": "numpy==1.26.4 --hash=sha256:" + "0" * 64 + "\ntorch>=2; sys_platform == 'linux'\n",
        "Pipfile": '[packages]\nnumpy = "==2.0"\ntorch = "<1"\n',
        "environment.yml": "dependencies: [pip: [numpy==1.26.4]]\n",
        "setup.py": "import setuptools; setuptools.setup(install_requires=['numpy>=2'])\n",
        "setup.cfg": "[flake8]\n",
        "pixi.toml": "[broken",
    }
    found = told(tmp_path, files)
    assert found == [
        "requirements.txt:1 asks for numpy==1.26.4, and Pipfile [packages] for numpy==2.0: the first counts",
        "requirements.txt:1 asks for numpy==1.26.4, and setup.py install_requires for numpy>=2: the first counts",
    ]


def test_named_specs_silence_nothing(tmp_path: Path) -> None:
    """One spec is never in conflict."""
    assert told(tmp_path, {"requirements.txt": "numpy<2\nnumpy>=1\n"}) == []


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("<2", ">=2", False),
        ("<=2", ">=2", True),
        ("<2", ">1.9", True),
        ("==1.26.4", ">=1.20", True),
        ("==1.26.*", "<1.26", False),
        ("~=1.4", ">=2", False),
        ("!=1.5", "==1.5", False),
        (">=1,<1.1", ">1.0,<1.0.9", True),
        (">=2.0rc1", "<2", False),
        ("", "==1", True),
        ("", "", True),
    ],
)
def test_overlap(one: str, other: str, both: bool) -> None:
    """Whether any version is in both."""
    assert overlap(SpecifierSet(one), SpecifierSet(other)) is both
    assert overlap(SpecifierSet(other), SpecifierSet(one)) is both


bound = st.builds(
    "{}{}.{}".format, st.sampled_from([">=", ">", "<", "<=", "==", "!="]), st.integers(0, 3), st.integers(0, 3)
)


@given(st.lists(bound, max_size=2), st.lists(bound, max_size=2))
def test_never_a_conflict_where_a_version_fits(one: list[str], other: list[str]) -> None:
    """Probes that fit both show that they overlap."""
    first, second = SpecifierSet(",".join(one)), SpecifierSet(",".join(other))
    probes = [f"{a}.{b}.{c}" for a in range(4) for b in range(5) for c in (0, 1)]
    if any(first.contains(probe) and second.contains(probe) for probe in probes):
        assert overlap(first, second)
