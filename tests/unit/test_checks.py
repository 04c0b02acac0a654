"""The linters are tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(*argv: str) -> None:
    """Run a checker of this environment over the checkout; its complaints become the failure."""
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    """No lint."""
    check("ruff", "check", "--no-cache", "mlbox", "tests")


def test_format() -> None:
    """The formatter would change nothing."""
    check("ruff", "format", "--no-cache", "--check", "mlbox", "tests")


def test_mypy() -> None:
    """Strict types."""
    check("mypy", "--cache-dir", os.environ.get("MYPY_CACHE_DIR", str(ROOT / ".mypy_cache")))


def test_version_imports_no_command_line_parser() -> None:
    """`mlbox version` is answered before typer, click or msgspec are imported."""
    code = "import sys; sys.argv = ['mlbox', 'version']; from mlbox.__main__ import main; main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert not {"typer", "click", "msgspec"} & set(done.stdout.split())


BUILDING = {"urllib3", "packaging", "uv", "tomlkit", "toml", "installer", "pip", "asyncio", "zipfile"}
BUILDING |= {"concurrent.futures", "mlbox.http", "mlbox.engine.locking", "mlbox.lock.python", "mlbox.lock.debian"}
SHARING = {"mlbox.registry", "mlbox.store.compression", "mlbox.trust.policy", "cryptography"}
DEVICES = {"mlbox.gpu.leases", "mlbox.cdi", "mlbox.linux.bpf", "mlbox.runtime.guard", "mlbox.engine.granting"}
ALWAYS = {"typer", "click", "rich", *BUILDING, *SHARING, *DEVICES}
LEAN = {
    "ps": {"mlbox.store", "mlbox.engine", "mlbox.lock", "mlbox.plan", "mlbox.oci.artifact"},
    "images -q": {"mlbox.runtime", "mlbox.engine", "mlbox.lock", "mlbox.plan", "mlbox.oci.artifact"},
    "run --rm --pull never none true": {"mlbox.lock", "mlbox.plan", "mlbox.oci.artifact"},
    "plan": {"mlbox.runtime"},
}
"""What a command of every day has no use for, beside what none of them has: each once made one of them slower."""


@pytest.mark.parametrize("line", list(LEAN))
def test_commands_start_lean(line: str, tmp_path: Path) -> None:
    """Frequent commands import what they use, and nothing more."""
    with_lock(tmp_path)
    code = "import sys; from mlbox.cli.main import run; run(sys.argv[1:]); sys.exit(' '.join(sys.modules))"
    env = os.environ | {"PYTHONPATH": str(ROOT), "MLBOX_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], cwd=tmp_path, env=env, capture_output=True, text=True
    )

    imported = set(done.stderr.splitlines()[-1].split())
    assert "msgspec" in imported
    assert sorted(imported & (ALWAYS | LEAN[line])) == []


def with_lock(root: Path) -> None:
    """Make `root` a project of nothing, with its lock."""
    from mlbox.lock.file import write_lock
    from mlbox.lock.model import Base, Lock, Target
    from mlbox.project.discover import inputs_digest, load_project

    (root / "requirements.txt").touch()
    target = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
    write_lock(
        root / "mlbox.lock", Lock(inputs=inputs_digest(load_project(root)), target=target, base=Base(suite="bookworm"))
    )


def test_no_word_of_this_machine() -> None:
    """The repository names no index, mirror or private path."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("deb", "debian", "org"))]
    for name in files:
        text = (ROOT / name).read_bytes()
        assert not [host for host in hosts if host.encode() in text], name


def test_readme_names_every_command() -> None:
    """The table of commands in the README is the program's."""
    from mlbox.cli.main import COMMANDS

    section = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("\n## ")[0]
    assert set(COMMANDS) <= set(section.replace("`", " ").replace(",", " ").split())


def test_readme_names_every_setting() -> None:
    """Each key of [tool.mlbox] that the README shows exists."""
    import tomllib

    from mlbox.project.model import Settings

    shown = tomllib.loads((ROOT / "README.md").read_text().partition("```toml")[2].partition("```")[0])
    known = {name.replace("_", "-") for name in Settings.__struct_fields__}
    assert set(shown["tool"]["mlbox"]) <= known
