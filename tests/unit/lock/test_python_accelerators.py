"""Locking for several accelerators at once, against indexes as PyTorch's are: one for each."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from fakes.desk import TARGET, Desk, desk
from fakes.index import FakeIndex, make_sdist, make_wheel, sha256

from mlbox.build.fetch import Places
from mlbox.errors import FetchError, ResolveError
from mlbox.http import Http
from mlbox.lock.accelerators import for_accelerator
from mlbox.lock.model import Base, Lock, Package
from mlbox.lock.python.config import indexes_for
from mlbox.lock.python.resolve import LockedPython
from mlbox.project.model import IndexOptions, Project, Requirement

__all__ = ["desk"]  # a fixture
PYPROJECT = "[build-system]\nrequires=['backend>=1']\nbuild-backend='backend'\n"


def torch_index(desk: Desk, accelerator: str, *versions: str, requires: Sequence[str] = ()) -> FakeIndex:
    """Offer builds of torch, and copies of other projects that must not be taken from there."""
    index = FakeIndex(desk.server, prefix=f"/whl/{accelerator}")
    for version in versions:
        index.add(make_wheel("torch", f"{version}+{accelerator}", requires=["numpy", *requires]))
    index.add(make_wheel("numpy", "1.0"))
    return index


@pytest.fixture
def root(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> str:
    """Offer torch for two accelerators, and a newer one on the index that all use."""
    torch_index(desk, "cpu", "2.8.0", "2.9.1")
    torch_index(desk, "cu126", "2.8.0", "2.9.1", "2.10.0", requires=["nvidia-blas==12.6"])
    desk.wheel("torch", "2.15.0")
    for version in ("1.0", "2.0"):
        desk.wheel("numpy", version)
    desk.wheel("nvidia-blas", "12.6")
    monkeypatch.setenv("MLBOX_TORCH_INDEX", f"{desk.server.url}/whl")
    return f"{desk.server.url}/whl"


def several(desk: Desk, *lines: str, accelerators: Sequence[str] = ("cpu", "cu126"), **more: object) -> Project:
    return desk.project(*lines, accelerator="cpu", accelerators=tuple(accelerators), **more)


def found(locked: LockedPython) -> list[tuple[str, str, str]]:
    """Return name, version and accelerators of each package."""
    return [(one.name, one.version, " ".join(one.accelerators)) for one in locked.packages]


def earlier(locked: LockedPython, *accelerators: str) -> Lock:
    return Lock(
        inputs="0" * 64,
        target=TARGET,
        base=Base(suite="bookworm"),
        packages=locked.packages,
        accelerators=accelerators,
    )


def test_each_gets_its_build_of_one_version_and_the_rest_is_shared(desk: Desk, root: str) -> None:
    assert found(desk.lock(several(desk, "torch"))) == [
        ("numpy", "2.0", ""),
        ("nvidia-blas", "12.6", "cu126"),
        ("torch", "2.9.1+cpu", "cpu"),
        ("torch", "2.9.1+cu126", "cu126"),
    ]
    assert desk.notes == []


def test_what_an_index_answered_counts_for_all(desk: Desk, root: str) -> None:
    """A second accelerator costs its own packages."""
    desk.lock(several(desk, "torch"))
    asked = desk.server.paths()
    assert [asked.count(f"/simple/{name}/") for name in ("numpy", "nvidia-blas")] == [1, 1]


def test_torch_comes_from_its_index_alone_whoever_asks_for_it(desk: Desk, root: str) -> None:
    desk.wheel("accelerate", "1.0", requires=["torch", "numpy"])
    locked = desk.lock(several(desk, "accelerate"))
    assert {(one.name, one.index) for one in locked.packages} == {
        ("accelerate", "default"),
        ("numpy", "default"),
        ("nvidia-blas", "default"),
        ("torch", "torch"),
    }


def test_an_index_of_torch_builds_is_not_asked_without_torch(desk: Desk, root: str) -> None:
    assert found(desk.lock(several(desk, "numpy"))) == [("numpy", "2.0", "")]
    assert not [path for path in desk.server.paths() if path.startswith("/whl/")]


def test_a_version_that_not_all_have_is_said(desk: Desk, root: str) -> None:
    torch_index(desk, "cu130", "2.10.0", "2.11.0")
    locked = desk.lock(several(desk, "torch", accelerators=("cpu", "cu126", "cu130")))
    assert [one for one in found(locked) if one[0] == "torch"] == [
        ("torch", "2.9.1+cpu", "cpu"),
        ("torch", "2.9.1+cu126", "cu126"),
        ("torch", "2.11.0+cu130", "cu130"),
    ]
    assert desk.notes == ["torch is not the same for all accelerators: 2.9.1 for cpu and cu126, 2.11.0 for cu130"]


def test_a_framework_may_force_another_version_of_what_others_share(desk: Desk, root: str) -> None:
    torch_index(desk, "cu130", "2.9.1", requires=["numpy<2"])
    locked = desk.lock(several(desk, "torch", accelerators=("cpu", "cu130", "cu126")))
    assert found(locked)[:2] == [("numpy", "2.0", "cpu cu126"), ("numpy", "1.0", "cu130")]
    assert desk.notes == ["numpy is not the same for all accelerators: 2.0 for cpu and cu126, 1.0 for cu130"]


def test_the_second_follows_the_first_where_it_can(desk: Desk, root: str) -> None:
    """Its own newest would be another one."""
    locked = desk.lock(several(desk, "torch", accelerators=("cu126", "cpu")))
    assert [one[1] for one in found(locked) if one[0] == "torch"] == ["2.10.0+cu126", "2.9.1+cpu"]
    locked = desk.lock(several(desk, "torch<2.10", accelerators=("cu126", "cpu")))
    assert [one[1] for one in found(locked) if one[0] == "torch"] == ["2.9.1+cu126", "2.9.1+cpu"]


def test_what_was_locked_stays_for_each(desk: Desk, root: str) -> None:
    before = desk.lock(several(desk, "torch<2.9", "numpy<2"))
    previous = earlier(before, "cpu", "cu126")
    assert found(desk.lock(several(desk, "torch", "numpy"), previous=previous)) == found(before)
    moved = desk.lock(several(desk, "torch", "numpy"), previous=previous, upgrade=["torch"])
    assert [one for one in found(moved) if one[0] != "nvidia-blas"] == [
        ("numpy", "1.0", ""),
        ("torch", "2.9.1+cpu", "cpu"),
        ("torch", "2.9.1+cu126", "cu126"),
    ]


def test_an_accelerator_that_is_added_follows_those_that_are_there(desk: Desk, root: str) -> None:
    before = desk.lock(desk.project("torch<2.9", "numpy<2", accelerator="cpu"), TARGET)
    locked = desk.lock(several(desk, "torch", "numpy"), previous=earlier(before))
    assert [one[:2] for one in found(locked) if one[0] != "nvidia-blas"] == [
        ("numpy", "1.0"),
        ("torch", "2.8.0+cpu"),
        ("torch", "2.8.0+cu126"),
    ]


def test_an_index_of_its_own_for_one_accelerator(desk: Desk, root: str) -> None:
    own = FakeIndex(desk.server, prefix="/own/place")
    own.add(make_wheel("torch", "2.9.1+cu126"))
    project = several(desk, "torch", accelerator_indexes={"cu126": own.url})
    assert ("torch", "2.9.1+cu126", "cu126") in found(desk.lock(project))
    assert "/whl/cu126/torch/" not in desk.server.paths()


def test_a_folder_may_be_the_index(desk: Desk, root: str, tmp_path: Path) -> None:
    folder = tmp_path / "mirror/torch"
    folder.mkdir(parents=True)
    name, data = make_wheel("torch", "2.9.1+cu126")
    (folder / name).write_bytes(data)
    (folder / "index.html").write_text(f'<a href="{name}#sha256={sha256(data)}">{name}</a>')
    project = several(desk, "torch", accelerator_indexes={"cu126": folder.parent.as_uri()})
    assert ("torch", "2.9.1+cu126", "cu126") in found(desk.lock(project))


def test_a_build_fetches_from_the_index_that_is_configured(desk: Desk, root: str) -> None:
    project = several(desk, "torch")
    (torch,) = [one for one in desk.lock(project).packages if one.version == "2.9.1+cu126"]
    mine = project.for_accelerator("cu126")
    places = Places(lambda: indexes_for(mine), Http(), home=desk.home.__class__(desk.root / "new"), root=desk.root)
    assert f"{desk.server.url}/files/{torch.filename}" in [url.replace("%2B", "+") for url in places.urls(torch)]


def test_an_index_without_torch_names_the_accelerator_and_the_setting(desk: Desk, root: str) -> None:
    with pytest.raises(FetchError, match="torch builds for accelerator 'cu130' has no torch: http://127") as raised:
        desk.lock(several(desk, "torch", accelerators=("cpu", "cu130")))
    assert "accelerator-indexes" in str(raised.value.hint)


def test_an_accelerator_without_a_build_is_named_with_the_package(desk: Desk, tmp_path: Path) -> None:
    """Not the newest build for another accelerator, which would be taken otherwise."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("2.9.1+cpu", "2.9.1+cu126"):
        name, data = make_wheel("torch", version)
        (folder / name).write_bytes(data)
    alone = {"index": IndexOptions(no_index=True), "find_links": (str(folder),), "index_url": ""}
    assert len(desk.lock(several(desk, "torch", **alone)).packages) == 2
    with pytest.raises(ResolveError, match=r"torch has no build for accelerator 'cu130'; .* is 2\.9\.1\+cu"):
        desk.lock(several(desk, "torch", accelerators=("cpu", "cu130"), **alone))


def test_folders_with_builds_give_each_the_same_version(desk: Desk, tmp_path: Path) -> None:
    for version in ("2.8.0+cpu", "2.9.1+cpu", "2.8.0+cu126", "2.9.1+cu126", "2.10.0+cu126"):
        name, data = make_wheel("torch", version)
        (tmp_path / name).write_bytes(data)
    project = several(desk, "torch")
    assert [one[1] for one in found(desk.lock(project, find_links=[str(tmp_path)]))] == ["2.9.1+cpu", "2.9.1+cu126"]
    older = several(desk, "torch<2.9")
    assert [one[1] for one in found(desk.lock(older, find_links=[str(tmp_path)]))] == ["2.8.0+cpu", "2.8.0+cu126"]


def test_no_versions_that_fit_name_the_accelerator(desk: Desk, root: str) -> None:
    desk.wheel("nvidia-blas", "11")
    with pytest.raises(ResolveError, match="for accelerator 'cu126': no set of versions fits"):
        desk.lock(several(desk, "torch", "nvidia-blas==11"))


def test_what_only_one_asks_for_is_locked_for_it_alone(desk: Desk, root: str) -> None:
    desk.wheel("only-cuda", "1.0")
    project = several(desk, "torch")
    asked = Requirement(text="only-cuda", origin="pyproject.toml [project.optional-dependencies.cu126]")
    with_extra = msgspec.structs.replace(project, variants={"cu126": (asked,)})
    (package,) = [one for one in desk.lock(with_extra).packages if one.name == "only-cuda"]
    assert (package.accelerators, package.wanted_by) == (("cu126",), (asked.origin,))


def test_what_builds_are_needed_for_is_shared(desk: Desk, root: str) -> None:
    desk.index.add(make_sdist("src", "1.0", pyproject=PYPROJECT))
    desk.wheel("backend", "1.0")
    locked = desk.lock(several(desk, "torch", "src"))
    assert [(one.name, one.accelerators) for one in locked.build_packages] == [("backend", ())]
    assert len([note for note in desk.notes if note.startswith("src 1.0")]) == 1


def test_passwords_of_a_mirror_reach_no_lock(desk: Desk, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBOX_TORCH_INDEX", root.replace("://", "://user:secret@"))
    locked = desk.lock(several(desk, "torch"))
    assert "secret" not in repr(locked)
    hints = [path.read_text() for path in (desk.home.metadata / "urls").iterdir()]
    assert hints and not any("secret" in hint for hint in hints)


def test_one_accelerator_of_its_own_needs_no_other(desk: Desk, root: str) -> None:
    assert found(desk.lock(several(desk, "torch", accelerators=("cu126",)))) == [
        ("numpy", "2.0", ""),
        ("nvidia-blas", "12.6", ""),
        ("torch", "2.10.0+cu126", ""),
    ]


def test_all_agree_with_the_locks_of_each_alone(desk: Desk, root: str) -> None:
    """Where no version differs, locking together gives what locking alone gives."""
    project = several(desk, "torch==2.9.1")
    whole = earlier(desk.lock(project), "cpu", "cu126")
    for name in ("cpu", "cu126"):
        target = msgspec.structs.replace(TARGET, accelerator=name)
        alone: tuple[Package, ...] = desk.lock(project.for_accelerator(name), target).packages
        assert for_accelerator(whole, name).packages == alone
