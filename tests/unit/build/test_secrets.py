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
        ("environment.yml", "channels: ['https://c.example.org/t/tk-1/ours']", True),
        ("environment.yml", "channels: ['https://c.example.org/t/${TOKEN}/ours', 'https://c.example.org/t/']", False),
        ("conda/environment-gpu.yaml", "channels: ['https://me:pw@c.example.org/ours']", True),
        ("pixi.toml", 'channels = ["https://c.example.org/t/tk-1/ours"]', True),
        ("conda-lock.yml", "- url: https://c.example.org/t/tk-1/ours/linux-64/x-1-0.conda", True),
        ("spec-file.txt", "@EXPLICIT\nhttps://c.example.org/t/tk-1/ours/linux-64/x-1-0.conda#00", True),
        ("poetry.lock", 'url = "https://u:p@host/simple"', True),
        ("requirements.txt", "x @ https://host/t/tools/x.whl", False),
        ("notes.txt", "https://user:secret@host/", False),
    ],
)
def test_credentials_in_spec_files(tmp_path: Path, name: str, text: str, found: bool) -> None:
    """A password or token in an http address of a spec file counts; placeholders and other files do not."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

    assert list(files_with_credentials(tmp_path, [ProjectFile(name, 0o644, len(text))])) == [name] * found


def test_a_file_that_the_settings_name_is_a_spec_file(tmp_path: Path) -> None:
    """Whatever it is called."""
    (tmp_path / "ours.yml").write_text("channels: ['https://c.example.org/t/tk-1/ours']")
    files = [ProjectFile("ours.yml", 0o644, 50)]
    assert list(files_with_credentials(tmp_path, files)) == []
    assert list(files_with_credentials(tmp_path, files, ["ours.yml"])) == ["ours.yml"]
