"""Passwords in spec files are found before they reach a layer."""

from pathlib import Path

import pytest

from mlbox.build.secrets import files_with_credentials
from mlbox.plan.model import ProjectFile


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("requirements.txt", "--index-url https://user:secret@host/simple", True),
        ("requirements/base.txt", "x @ https://token@host/x.whl", True),
        ("sub/requirements-dev.in", "x @ git+https://u:p@host/x.git", True),
        ("pyproject.toml", 'dependencies = ["x @ https://u:p@host/x.whl"]', True),
        ("requirements.txt", "--index-url https://${USER}:${TOKEN}@host/simple", False),
        ("requirements.txt", "--index-url https://${TOKEN}@host/simple", False),
        ("requirements.txt", "x @ git+ssh://git@host/x.git", False),
        ("requirements.txt", "x @ https://host/x@1.0.whl", False),
        ("pyproject.toml", 'authors = [{name="a", email="a@example.org"}]\nurl = "https://host/"', False),
        ("notes.txt", "https://user:secret@host/", False),
    ],
)
def test_credentials_in_spec_files(tmp_path: Path, name: str, text: str, found: bool) -> None:
    """A password or token in an http address of a spec file counts; placeholders and other files do not."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

    assert list(files_with_credentials(tmp_path, [ProjectFile(name, 0o644, len(text))])) == [name] * found
