"""What an index would carry works: the wheel built from the sdist has the program and its data."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `python -m build` makes from the sdist it makes."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "-q", "--outdir", str(out), str(ROOT)], check=True)
    return next(out.glob("*.whl"))


@pytest.mark.integration
def test_wheel_holds_the_data(wheel: Path) -> None:
    """templates/, gpu/ and the package's own tables travel inside the package."""
    names = zipfile.ZipFile(wheel).namelist()

    assert any(name.startswith("mlbox/_data/templates/") for name in names)
    assert any(name.startswith("mlbox/_data/gpu/") for name in names)
    assert "mlbox/build/libraries.toml" in names
    assert not any(name.startswith(("tests/", "examples/", "gpu/", "templates/")) for name in names)


@pytest.mark.integration
def test_installed_wheel_reads_its_data(wheel: Path, tmp_path: Path) -> None:
    """From another folder, without the checkout, the program starts and finds its templates."""
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)], check=True
    )
    code = f"import sys; sys.path.insert(0, {str(target)!r}); import mlbox; from mlbox.resources import folder; "
    code += f"assert mlbox.__file__.startswith({str(target)!r}); print((folder('templates') / 'index.toml').is_file())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "True"
    assert not (ROOT / "mlbox" / "_data").exists()
