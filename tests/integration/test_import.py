"""Each import against the lock's own tool: what it would install for the target is what is taken."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import missing
from fakes.index import FakeIndex
from fakes.lockers import Tool, index, tool_of
from fakes.universe import EDGES, EXTRAS, FORKED, GROUPS, LINES, pipfile, poetry_pyproject, pyproject, write
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlbox.errors import LockError
from mlbox.http import Http
from mlbox.lock.foreign.completing import complete
from mlbox.lock.foreign.importing import reader_of
from mlbox.lock.foreign.model import Selection
from mlbox.lock.model import Target
from mlbox.lock.python.model import Index, Indexes, Pinned
from mlbox.lock.python.target import marker_environment
from mlbox.project.requirements import logical_lines, split_options

__all__ = ["index", "tool_of"]  # fixtures
pytestmark = pytest.mark.integration

OLD = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
NEW = Target(arch="arm64", python="3.13", python_full="3.13.5", glibc="2.41")

TARGETS = (OLD, NEW)
SELECTIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (((), ()), (("gpu",), ("dev",)))


def more(extras: tuple[str, ...], groups: tuple[str, ...]) -> list[str]:
    """Return what the project asks for with these, besides."""
    return [*(line for one in extras for line in EXTRAS[one]), *(line for one in groups for line in GROUPS[one])]


def said(text: str, target: Target) -> dict[str, tuple[str, frozenset[str]]]:
    """Read a requirements file as the tool wrote it: what it means for `target`, with the hashes."""
    found = {}
    for _, whole in logical_lines(text):
        line, options = split_options(whole)
        if not line:
            continue
        parsed = Requirement(line)
        if parsed.marker is None or parsed.marker.evaluate({**marker_environment(target), "extra": ""}):
            hashes = frozenset(word.rpartition(":")[2] for word in options.split() if "sha256:" in word)
            found[canonicalize_name(parsed.name)] = (str(parsed.specifier).removeprefix("=="), hashes)
    return found


def taken(kind: str, lock: Path, target: Target, index: FakeIndex, **selection: tuple[str, ...]) -> tuple[Pinned, ...]:
    """Import `lock` as `mlbox lock` does."""
    spec = lock.with_name("Pipfile" if kind == "pipenv" else "pyproject.toml")
    chosen = Selection(target=target, spec=spec.read_bytes(), **selection)
    imported = reader_of(kind)(lock.read_bytes(), chosen)
    indexes = Indexes(default=Index(name="default", url=index.url))
    return complete(imported.pins, target, indexes, Http(), folder=lock.parent, what=lock.name)


def same(pins: tuple[Pinned, ...], owner: dict[str, tuple[str, frozenset[str]]], *, edges: bool = True) -> None:
    """Compare names, versions, the file's hash and who asks for whom."""
    assert {pin.name: pin.version for pin in pins} == {name: version for name, (version, _) in owner.items()}
    for pin in pins:
        assert len(pin.files) == 1 and pin.index == "default"
        assert pin.files[0].sha256 in owner[pin.name][1]
        assert not edges or pin.requires == EDGES[pin.name]


def test_uv(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex) -> None:
    """Forks, markers, extras and groups are those of `uv export --frozen`; pylock.toml says the same."""
    uv = tool_of("uv")
    write(tmp_path, "pyproject.toml", pyproject((*LINES, *FORKED)))
    uv(tmp_path, "lock", "--default-index", index.url)
    for extras, groups in SELECTIONS:
        options = [*(f"--extra={extra}" for extra in extras), *(f"--group={group}" for group in groups)]
        export = ["export", "--frozen", "--no-emit-project", "--no-default-groups", *options]
        owner = uv(tmp_path, *export)
        (tmp_path / "pylock.toml").write_text(uv(tmp_path, *export, "--format", "pylock.toml"))
        for target in TARGETS:
            pins = taken("uv", tmp_path / "uv.lock", target, index, extras=extras, groups=groups)
            same(pins, said(owner, target))
            pins = taken("pylock", tmp_path / "pylock.toml", target, index)
            same(pins, said(owner, target), edges=False)


def test_uv_extras_that_exclude_one_another(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex) -> None:
    """Each brings its own version, of what the project asks for in any case too; a group goes with either."""
    uv = tool_of("uv")
    tables = '[project.optional-dependencies]\ncpu = ["core==1.0"]\ncu = ["core==1.5", "accel"]\n'
    tables += (
        '[dependency-groups]\ndev = ["web[fast]"]\n[tool.uv]\nconflicts = [[{ extra = "cpu" }, { extra = "cu" }]]\n'
    )
    project = '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["core"]\n'
    write(tmp_path, "pyproject.toml", project + tables)
    uv(tmp_path, "lock", "--default-index", index.url)
    for extras in ((), ("cpu",), ("cu",)):
        for groups in ((), ("dev",)):
            options = [*(f"--extra={extra}" for extra in extras), *(f"--group={group}" for group in groups)]
            owner = uv(tmp_path, "export", "--frozen", "--no-emit-project", "--no-default-groups", *options)
            for target in TARGETS:
                pins = taken("uv", tmp_path / "uv.lock", target, index, extras=extras, groups=groups)
                same(pins, said(owner, target))


def test_uv_a_project_that_has_moved_on(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex) -> None:
    """What uv says is fresh fits, and what it would lock again does not."""
    uv = tool_of("uv")
    write(tmp_path, "pyproject.toml", pyproject((*LINES, *FORKED)))
    uv(tmp_path, "lock", "--default-index", index.url)
    write(tmp_path, "pyproject.toml", pyproject(("Web[fast] >= 1", *reversed(FORKED), LINES[1])))
    uv(tmp_path, "lock", "--check", "--default-index", index.url)
    assert taken("uv", tmp_path / "uv.lock", OLD, index)
    write(tmp_path, "pyproject.toml", pyproject((*LINES, *FORKED, "helper")))
    with pytest.raises(LockError, match="helper is asked for"):
        taken("uv", tmp_path / "uv.lock", OLD, index)


@pytest.mark.parametrize("version", ["2", "1.8"])
def test_poetry(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex, version: str) -> None:
    """Both ways of saying who asks for a package: groups and markers, and a walk from the project."""
    poetry = tool_of("poetry", f"poetry=={version}.*", "poetry-plugin-export")
    write(tmp_path, "pyproject.toml", poetry_pyproject(index.url))
    poetry(tmp_path, "lock")
    for extras, groups in SELECTIONS:
        options = [*(f"--extras={extra}" for extra in extras), *(f"--with={group}" for group in groups)]
        only = [] if groups else ["--only=main"]
        owner = poetry(tmp_path, "export", "--format=requirements.txt", *only, *options)
        asks = ("web[fast]<2,>=1.0", *FORKED, *LINES[1:], *more(extras, groups))
        for target in TARGETS:
            lock = tmp_path / "poetry.lock"
            pins = taken("poetry", lock, target, index, extras=extras, groups=groups, requirements=asks)
            same(pins, said(owner, target))


@pytest.mark.parametrize("strategy", ["inherit_metadata", "static_urls", "no_inherit_metadata"])
def test_pdm(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex, strategy: str) -> None:
    """With and without inherited metadata, with and without addresses of files."""
    pdm = tool_of("pdm", "pdm[locked]")
    source = f'[tool.pdm]\ndistribution = false\n[[tool.pdm.source]]\nname = "pypi"\nurl = "{index.url}"\n'
    write(tmp_path, "pyproject.toml", pyproject(LINES, tool=source))
    lock = write(tmp_path / "ours", "pyproject.toml", pyproject(LINES, tool=source)) / "pdm.lock"
    pdm(lock.parent, "lock", "-G", "gpu", "-G", "dev", "--strategy", strategy)
    pdm(tmp_path, "lock", "-G", "gpu", "-G", "dev")  # what can be exported
    for extras, groups in SELECTIONS:
        options = [*(f"-G{name}" for name in (*extras, *groups)), *([] if groups else ["--prod"])]
        owner = pdm(tmp_path, "export", "--format=requirements", *options)
        asks = (*LINES, *more(extras, groups))
        for target in TARGETS:
            pins = taken("pdm", lock, target, index, extras=extras, groups=groups, requirements=asks)
            same(pins, said(owner, target))


def test_pipenv(tmp_path: Path, tool_of: Callable[..., Tool], index: FakeIndex) -> None:
    """Categories; the files' names come from the index."""
    pipenv = tool_of("pipenv")
    if shutil.which("python3.11") is None:
        missing("pipenv locks for a Python that is here, and there is no python3.11")
    write(tmp_path, "Pipfile", pipfile(index.url))
    pipenv(tmp_path, "lock")
    for groups in ((), ("dev",), ("gpu", "dev")):
        names = ["packages", *("dev-packages" if group == "dev" else group for group in groups)]
        owner = pipenv(tmp_path, "requirements", "--hash", f"--categories={','.join(names)}")
        same(taken("pipenv", tmp_path / "Pipfile.lock", OLD, index, groups=groups), said(owner, OLD), edges=False)
