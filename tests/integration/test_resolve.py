import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing

from mlbox import process
from mlbox.build.fetch import Places, fetch_one
from mlbox.errors import FetchError
from mlbox.http import Http
from mlbox.lock.model import Target
from mlbox.lock.python.config import indexes_for
from mlbox.lock.python.resolve import LockedPython, lock_python
from mlbox.paths import Home
from mlbox.project.model import Project, Requirement, Settings
from mlbox.store.artifacts import ArtifactStore

pytestmark = pytest.mark.integration

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
ARM = Target(arch="arm64", python="3.13", python_full="3.13.5", glibc="2.41")


def project(root: Path, *lines: str, resolver: str = "uv") -> Project:
    return Project(
        root=root,
        name="x",
        settings=Settings(resolver=resolver),  # type: ignore[arg-type]
        sources=(),
        requirements=tuple(Requirement(text=line, origin=f"r.txt:{n}") for n, line in enumerate(lines, 1)),
    )


@pytest.fixture(autouse=True)
def index(tmp_path: Path) -> Iterator[None]:
    found = indexes_for(project(tmp_path)).default
    assert found is not None
    try:
        Http().get(f"{found.url}/six/", limit=64 << 20)
    except FetchError as problem:
        missing(f"the index cannot be read: {problem.message}")
    yield


@pytest.mark.parametrize("target", [TARGET, ARM], ids=["amd64-3.11", "arm64-3.13"])
def test_both_resolvers_give_the_same_lock(tmp_path: Path, target: Target) -> None:
    lines = ("requests[socks]", "fastapi>=0.100", "pandas<3", "tomli; python_version < '3.12'")
    locks: list[LockedPython] = [
        lock_python(project(tmp_path, *lines, resolver=resolver), target) for resolver in ("uv", "pip-tools")
    ]
    assert locks[0] == locks[1]
    names = {package.name for package in locks[0].packages}
    assert {"requests", "pysocks", "fastapi", "pandas", "numpy", "pip"} <= names
    assert ("tomli" in names) is (target is TARGET)
    assert all(package.size for package in locks[0].packages)


def test_what_is_locked_can_be_fetched_without_the_memory_of_locking(tmp_path: Path, home: Home) -> None:
    asked = project(tmp_path, "six", "docopt")
    locked = lock_python(asked, TARGET)
    http, store = Http(), ArtifactStore(home)
    places = Places(lambda: indexes_for(asked), http, home=home, root=tmp_path)
    for package in (*locked.packages, *locked.build_packages):
        path = fetch_one(places.wanted(package), store, http)
        assert path.stat().st_size == package.size
    assert [package.filename for package in locked.packages if not package.is_wheel] == ["docopt-0.6.2.tar.gz"]
    assert "setuptools" in {package.name for package in locked.build_packages}


def test_torch_of_a_local_folder_only_when_asked(tmp_path: Path) -> None:
    folder = torch_folder()
    asked = project(tmp_path, "torch")
    locked = lock_python(asked, TARGET, find_links=[str(folder)])
    (torch,) = [package for package in locked.packages if package.name == "torch"]
    assert torch.version.endswith("+cpu")
    assert torch.index == "find-links"
    assert str(folder) not in repr(locked)


def torch_folder() -> Path:
    """Return the folder of pip's configuration that has a CPU build of torch."""
    listed = process.run(["pip", "config", "get", "global.find-links"], ok=(0, 1)).stdout.decode().split()
    for folder in [*listed, *os.environ.get("PIP_FIND_LINKS", "").split()]:
        if any(Path(folder).glob("torch-*+cpu-cp311-*x86_64.whl")):
            return Path(folder)
    missing("pip's configuration names no folder with a CPU build of torch")
    return Path()
