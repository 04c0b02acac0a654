"""Who asked for a package, and whose a file is."""

import msgspec
import pytest
from fakes.images import SITE, debs, lock_of, make_image, package, wheel

from mlbox.errors import NotFoundError
from mlbox.lock.model import Folder
from mlbox.report.contents import Contents, contents_of
from mlbox.report.requirers import Graph, chains_to
from mlbox.report.why import why_file, why_locked, why_package
from mlbox.store.store import Store

LOCK = lock_of(
    package("top", requires=("mid", "leaf"), wanted_by=("requirements.txt:1",)),
    package("mid", requires=("leaf",)),
    package("leaf", requires=("top",)),
    package("alone", wanted_by=("requirements.txt:9",)),
    debs=(("libc6", "base"), ("git", "system"), ("libperl", "system")),
    system=("git",),
)


@pytest.fixture
def contents(store: Store) -> Contents:
    base = debs(
        ("libc6", "1", "Essential: yes\n", {"usr/lib/libc.so": b"123"}),
        ("git", "1", "Depends: libperl\n", {"usr/bin/git": b"g"}),
        ("libperl", "1", "Depends: libc6\n", {}),
    )
    env = {**wheel("top", top__a=b"1"), **wheel("mid"), **wheel("leaf", "2.0", leaf__big=b"1" * 50, leaf__small=b"1")}
    layers = {"base": {**base, "bin": "usr/bin"}, "env": env, "project": {"usr/bin/git": b"mine", "workspace/x": b""}}
    return contents_of(store, make_image(store, layers, lock=LOCK), "me:1")


def test_chains_from_the_projects_lines(contents: Contents) -> None:
    """Shortest first, cycles or not."""
    found = why_package(contents, LOCK, "Leaf", [("other:1", {contents.layers[1].diff_id})])

    assert found.chains == (("requirements.txt:1", "top", "leaf"), ("requirements.txt:1", "top", "mid", "leaf"))
    assert found.required_by == ("mid", "top")
    assert (found.kind, found.version, found.layers[0].layer) == ("python", "2.0", "env")
    assert found.layers[0].shared_with == ("other:1",)
    assert found.largest[0].path.endswith("/RECORD") or found.largest[0].size >= 50
    assert found.size == found.layers[0].size > 51


def test_debian_packages_have_chains_too(contents: Contents) -> None:
    found = why_package(contents, LOCK, "libperl", [])

    assert found.chains == (("[tool.mlbox] system-packages", "git", "libperl"),)
    assert why_package(contents, LOCK, "libc6", []).chains[0] == ("the base (Debian bookworm)", "libc6")


def test_an_image_without_a_lock_says_what_it_knows(contents: Contents) -> None:
    found = why_package(contents, None, "libperl", [])

    assert (found.chains, found.required_by) == ((), ("git",))


def test_unknown_names_have_hints(contents: Contents) -> None:
    with pytest.raises(NotFoundError) as problem:
        why_package(contents, LOCK, "lea", [])

    assert "leaf" in (problem.value.hint or "")


@pytest.mark.parametrize(
    ("path", "owner", "layer"),
    [
        (f"/{SITE}/leaf/big", "leaf 2.0", "env"),
        ("/usr/lib/libc.so", "libc6 1", "base"),
        ("/bin/git", "git 1", "project"),
        ("/bin", "base", "base"),
        ("workspace/../workspace/x", "project", "project"),
    ],
)
def test_whose_a_file_is(contents: Contents, path: str, owner: str, layer: str) -> None:
    """Links to folders on the way are followed, as a container would."""
    found = why_file(contents, path)

    assert (found.owners, found.layer) == ((owner,), layer)


def test_a_file_that_hides_another(contents: Contents) -> None:
    assert why_file(contents, "/usr/bin/git").below == ("base",)


def test_a_folder_has_many_owners(contents: Contents) -> None:
    assert set(why_file(contents, "/usr").owners) == {"libc6 1", "git 1"}


def test_unknown_files_have_hints(contents: Contents) -> None:
    with pytest.raises(NotFoundError) as problem:
        why_file(contents, "/usr/lib64/libc.so")

    assert problem.value.hint == "did you mean /usr/lib/libc.so?"


def test_a_lock_alone_explains_too() -> None:
    """Without an image: no files, but who asked and which file it would be."""
    assert why_locked(LOCK, "mid").chains == (("requirements.txt:1", "top", "mid"),)
    assert why_locked(LOCK, "git").artifact == "git_1_amd64.deb"
    with pytest.raises(NotFoundError) as problem:
        why_locked(LOCK, "mit")
    assert "mid" in (problem.value.hint or "")


def test_folders_of_the_project_stand_between() -> None:
    """What a folder asks for is there because of the folder."""
    folder = Folder(name="thing", path="libs/thing", requires=("top",), wanted_by=("pyproject.toml",))
    lock = msgspec.structs.replace(LOCK, folders=(folder,))
    found = why_locked(lock, "thing")
    assert (found.artifact, found.chains) == ("./libs/thing", (("pyproject.toml", "thing"),))
    assert ("pyproject.toml", "thing", "top", "mid") in why_locked(lock, "mid").chains


def test_graphs_with_very_many_ways_end() -> None:
    """A ladder of 60 rungs has 2 to the 60 chains."""
    requires = {f"{side}{n}": (f"a{n + 1}", f"b{n + 1}") for n in range(60) for side in "ab"}

    found, more = chains_to(Graph(requires=requires, roots={"a58": ("x",), "b58": ("y",)}), "a60")

    assert len(found) == 4
    assert not more
    found, more = chains_to(Graph(requires=requires, roots={"a0": ("x",)}), "a60")
    assert len(found) == 20
    assert more
    assert {len(chain) for chain in found} == {62}
