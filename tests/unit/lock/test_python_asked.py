from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.lock.model import Target
from mlbox.lock.python.asked import Asked, asked_for
from mlbox.project.model import Project, Requirement, Settings

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
HEX = "a" * 64


def asked(root: Path, *requirements: tuple[str, str], pip: bool = False) -> Asked:
    found = tuple(
        Requirement(text=text, kind=kind, origin=f"requirements.txt:{number}")  # type: ignore[arg-type]
        for number, (kind, text) in enumerate(requirements, 1)
    )
    project = Project(root=root, name="x", settings=Settings(pip=pip), sources=(), requirements=found)
    return asked_for(project, TARGET)


def test_names_are_normalised_and_know_their_lines(tmp_path: Path) -> None:
    found = asked(tmp_path, ("named", "Foo_Bar[x]>=1"), ("named", "foo.bar<9"), ("named", "six"))
    assert found.origins == {"foo-bar": ("requirements.txt:1", "requirements.txt:2"), "six": ("requirements.txt:3",)}
    assert found.lines == ("Foo_Bar[x]>=1", "foo.bar<9", "six")


def test_markers_are_those_of_the_target(tmp_path: Path) -> None:
    found = asked(tmp_path, ("named", "a; python_version < '3.11'"), ("named", "b; platform_machine == 'x86_64'"))
    assert list(found.origins) == ["b"]
    assert len(found.lines) == 2


def test_hashes_are_collected(tmp_path: Path) -> None:
    found = asked(tmp_path, ("named", f"six==1.0 --hash=sha256:{HEX} --hash=sha256:{HEX.upper().replace('A', 'B')}"))
    assert found.hashes == {"six": frozenset({HEX, "b" * 64})}


def test_pip_is_added_when_wanted(tmp_path: Path) -> None:
    assert asked(tmp_path, pip=True).origins == {"pip": ("mlbox (settings.pip)",)}
    assert asked(tmp_path, ("named", "pip<26"), pip=True).lines == ("pip<26",)
    assert asked(tmp_path).lines == ()


def test_a_file_of_the_project_becomes_an_address(tmp_path: Path) -> None:
    (tmp_path / "a-1.0-py3-none-any.whl").write_bytes(b"")
    found = asked(tmp_path, ("path", "./a-1.0-py3-none-any.whl ; python_version > '3'"))
    assert found.lines == (f"{(tmp_path / 'a-1.0-py3-none-any.whl').as_uri()} ; python_version > '3'",)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="no such file"):
        asked(tmp_path, ("path", "./gone.whl"))


def test_what_is_no_requirement_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"requirements\.txt:1: not a requirement"):
        asked(tmp_path, ("named", "six = 1"))


@pytest.mark.parametrize(
    ("kind", "text", "answer"),
    [
        ("url", "https://u:p@h.invalid/a-1-py3-none-any.whl#sha256=1", "https://h.invalid/a-1-py3-none-any.whl"),
        ("vcs", "git+https://h.invalid/r.git@v1", "https://h.invalid/r"),
        ("vcs", "git+https://h.invalid/r@v1#subdirectory=x", "https://h.invalid/r"),
    ],
)
def test_nameless_addresses_are_found_by_address(tmp_path: Path, kind: str, text: str, answer: str) -> None:
    found = asked(tmp_path, (kind, text))
    assert found.origins_by_url(answer) == ("requirements.txt:1",)
    assert found.origins_by_url("") == ()


def test_named_addresses_are_found_by_name(tmp_path: Path) -> None:
    found = asked(
        tmp_path, ("vcs", "Tool @ git+https://h.invalid/r@v1"), ("vcs", "git+https://h.invalid/q#egg=Other_One")
    )
    assert set(found.origins) == {"tool", "other-one"}
