import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.desk import TARGET, Desk, desk
from fakes.index import FakeIndex, make_sdist, make_wheel, sha256
from fakes.server import Reply

from mlbox.errors import FetchError, LockError, MlboxError, ResolveError
from mlbox.lock.model import Base, Lock, Package, Target
from mlbox.lock.python.choosing import url_hint
from mlbox.lock.python.model import Index, Indexes, Question
from mlbox.lock.python.resolve import LockedPython
from mlbox.lock.python.uv import explain, parse_pins
from mlbox.project.model import IndexOptions, IndexPin, Requirement, Settings

__all__ = ["desk"]  # a fixture
ARM = Target(arch="arm64", python="3.12", python_full="3.12.1", glibc="2.28")

# Enough of a build back end for pip, which asks it for metadata where uv believes a PKG-INFO of version 2.2.
BACKEND = b"""
import pathlib
def prepare_metadata_for_build_wheel(folder, settings=None):
    text = pathlib.Path("PKG-INFO").read_text()
    name = text.split("Name: ")[1].split()[0]
    info = pathlib.Path(folder, f"{name}-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text(text)
    return info.name
def build_wheel(folder, settings=None, metadata=None):
    raise SystemExit("nothing is built when locking")
"""
PYPROJECT = "[build-system]\nrequires=['backend>=1']\nbuild-backend='backend'\n"

both_resolvers = pytest.mark.parametrize("resolver", ["uv", "pip-tools"])


def previous(locked: LockedPython) -> Lock:
    return Lock(inputs="0" * 64, target=TARGET, base=Base(suite="bookworm"), packages=locked.packages)


def versions(locked: LockedPython) -> dict[str, str]:
    return {package.name: package.version for package in locked.packages}


@both_resolvers
def test_everything_the_lock_says(desk: Desk, resolver: str) -> None:
    requires = ["dep>=1", "extra; extra == 'more'", "no; python_version < '3.11'"]
    app = desk.wheel("App-One", "1.0", requires=requires, extra_metadata="Provides-Extra: more\n")
    dep = desk.wheel("dep", "2.0")
    desk.wheel("extra", "3.0")
    locked = desk.lock(desk.project("App_One[more]", resolver=resolver))
    assert locked.build_packages == ()
    assert [package.name for package in locked.packages] == ["app-one", "dep", "extra"]
    assert locked.packages[0] == Package(
        name="app-one",
        version="1.0",
        filename="App_One-1.0-py3-none-any.whl",
        sha256=sha256(app),
        size=len(app),
        requires=("dep", "extra"),
        wanted_by=("requirements.txt:1",),
    )
    assert url_hint(desk.home, sha256(dep)).read_text() == f"{desk.server.url}/files/dep-2.0-py3-none-any.whl"


@both_resolvers
def test_the_target_decides_and_not_this_host(desk: Desk, resolver: str) -> None:
    for tag in (
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp312-cp312-manylinux_2_31_aarch64",
    ):
        desk.wheel("native", "1.0", tag=tag)
    desk.wheel("app", "1.0", requires=["native", "arm; platform_machine == 'aarch64'", "old; python_version < '3.12'"])
    desk.wheel("arm", "1.0")
    desk.wheel("old", "1.0")
    desk.wheel("newer", "2.0", extra_metadata="Requires-Python: >=3.12\n")
    desk.wheel("newer", "1.0")
    project = desk.project("app", "newer", resolver=resolver)
    amd, arm = desk.lock(project), desk.lock(project, ARM)
    assert versions(amd) == {"app": "1.0", "native": "1.0", "newer": "1.0", "old": "1.0"}
    assert versions(arm) == {"app": "1.0", "arm": "1.0", "native": "1.0", "newer": "2.0"}
    assert {p.filename for p in arm.packages if p.name == "native"} == {
        "native-1.0-cp312-cp312-manylinux_2_28_aarch64.whl"
    }


@both_resolvers
def test_an_old_lock_is_kept_and_upgrade_moves_what_it_names(desk: Desk, resolver: str) -> None:
    for name in ("a", "b"):
        desk.wheel(name, "1.0")
    project = desk.project("a", "b", resolver=resolver)
    first = desk.lock(project)
    for name in ("a", "b"):
        desk.wheel(name, "2.0")
    lock = previous(first)
    assert versions(desk.lock(project, previous=lock, upgrade=["A"])) == {"a": "2.0", "b": "1.0"}
    if resolver == "pip-tools":  # it takes half a second each time
        return
    assert desk.lock(project, previous=lock) == first
    assert versions(desk.lock(project, previous=lock, upgrade=True)) == {"a": "2.0", "b": "2.0"}
    moved = desk.project("a>1", "b", resolver=resolver)
    assert versions(desk.lock(moved, previous=lock)) == {"a": "2.0", "b": "1.0"}


def test_a_pinned_prerelease_can_be_locked_again(desk: Desk) -> None:
    desk.wheel("a", "1.0b1")
    desk.wheel("a", "0.9")
    project = desk.project("a>=1.0b1")
    first = desk.lock(project)
    assert versions(first) == {"a": "1.0b1"}
    assert desk.lock(project, previous=previous(first)) == first
    assert versions(desk.lock(desk.project("a", index=IndexOptions(pre=True)))) == {"a": "1.0b1"}


def test_constraints_count(desk: Desk) -> None:
    desk.wheel("a", "1.0")
    desk.wheel("a", "2.0")
    desk.wheel("b", "1.0")
    locked = desk.lock(desk.project("a", constraints=("a<2", "b==1.0")))
    assert versions(locked) == {"a": "1.0"}


def test_hashes_of_the_requirements_choose_the_file(desk: Desk) -> None:
    wheel = desk.wheel("a", "1.0")
    sdist = desk.index.add(make_sdist("a", "1.0", pyproject=PYPROJECT))
    desk.wheel("backend", "1.0", files={"backend.py": BACKEND})
    (chosen,) = desk.lock(desk.project(f"a==1.0 --hash=sha256:{sha256(wheel)}")).packages
    assert chosen.sha256 == sha256(wheel)
    (chosen,) = desk.lock(desk.project(f"a==1.0 --hash=sha256:{sha256(sdist)}")).packages
    assert chosen.filename == "a-1.0.tar.gz"
    with pytest.raises(ResolveError, match="hash"):
        desk.lock(desk.project(f"a==1.0 --hash=sha256:{'0' * 64}"))


@both_resolvers
def test_an_sdist_brings_what_builds_it(desk: Desk, resolver: str) -> None:
    desk.index.add(make_sdist("src", "1.0", pyproject=PYPROJECT))
    desk.wheel("backend", "1.0", requires=["helper"], files={"backend.py": BACKEND})
    desk.wheel("helper", "1.0")
    locked = desk.lock(desk.project("src", resolver=resolver))
    assert [package.filename for package in locked.packages] == ["src-1.0.tar.gz"]
    assert [package.name for package in locked.build_packages] == ["backend", "helper"]
    assert any("built in a container" in note for note in desk.notes)
    if resolver == "uv":  # pip has asked the back end for metadata by then, and failed
        desk.index.remove("helper-1.0-py3-none-any.whl")
        with pytest.raises(ResolveError, match=r"building src 1\.0 needs"):
            desk.lock(desk.project("src"))


@both_resolvers
def test_contradictions_are_explained(desk: Desk, resolver: str) -> None:
    desk.wheel("app", "1.0", requires=["dep<2"])
    desk.wheel("dep", "1.0")
    desk.wheel("dep", "2.0")
    with pytest.raises(ResolveError) as caught:
        desk.lock(desk.project("app", "dep>=2", resolver=resolver))
    for word in ("app", "dep<2", "dep>=2"):
        assert word in caught.value.message
    for noise in ("/tmp/", "in.txt", "\x1b"):
        assert noise not in caught.value.message
    assert caught.value.hint


@both_resolvers
def test_unknown_packages_have_a_hint(desk: Desk, resolver: str) -> None:
    with pytest.raises(ResolveError, match="numppy") as caught:
        desk.lock(desk.project("numppy", resolver=resolver))
    assert "check" in str(caught.value.hint)


@both_resolvers
def test_an_index_that_fails_is_said_without_its_password(desk: Desk, resolver: str) -> None:
    desk.server.behave = lambda request: Reply(status=500)
    url = desk.index.url.replace("//", "//me:secret@")
    with pytest.raises(MlboxError) as caught:
        desk.lock(desk.project("a", resolver=resolver, index_url=url))
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"
    assert len(desk.server.requests) < 30


def test_an_index_nobody_serves_is_said(desk: Desk) -> None:
    with pytest.raises(FetchError, match="cannot be read") as caught:
        desk.lock(desk.project("a", index_url="http://127.0.0.1:1/simple"))
    assert "127.0.0.1:1/simple (from the project)" in str(caught.value.hint)


def test_a_stalling_index_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "1")
    headers = {"Content-Type": "text/html"}
    desk.server.behave = lambda request: Reply(b"<html>", headers=headers, cut=3, stall=True)
    with pytest.raises(FetchError, match="cannot be read"):
        desk.lock(desk.project("a"))


@both_resolvers
def test_the_password_of_the_index_reaches_it(desk: Desk, resolver: str) -> None:
    desk.wheel("a", "1.0")
    plain = desk.server.behave

    def guard(request: Any) -> Any:
        return plain(request) if request.headers.get("Authorization") else Reply(status=401)

    desk.server.behave = guard
    locked = desk.lock(desk.project("a", resolver=resolver, index_url=desk.index.url.replace("//", "//me:secret@")))
    assert versions(locked) == {"a": "1.0"}
    hint = url_hint(desk.home, locked.packages[0].sha256).read_text()
    assert "secret" not in hint


def test_configuration_of_the_host_does_not_leak(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.wheel("a", "1.0")
    local = tmp_path / "local"
    local.mkdir()
    name, data = make_wheel("a", "9.0")
    (local / name).write_bytes(data)
    (tmp_path / "user/.config/pip").mkdir(parents=True)
    (tmp_path / "user/.config/pip/pip.conf").write_text(f"[global]\nfind-links = {local}\n")
    (tmp_path / "user/.config/uv").mkdir(parents=True)
    (tmp_path / "user/.config/uv/uv.toml").write_text(f'find-links = ["{local}"]\n')
    (desk.root / "uv.toml").write_text(f'find-links = ["{local}"]\n')
    monkeypatch.setenv("PIP_FIND_LINKS", str(local))
    monkeypatch.setenv("UV_FIND_LINKS", str(local))
    for resolver in ("uv", "pip-tools"):
        assert versions(desk.lock(desk.project("a", resolver=resolver))) == {"a": "1.0"}
    assert any("PIP_FIND_LINKS" in note for note in desk.notes)
    for resolver in ("uv", "pip-tools"):
        (asked,) = desk.lock(desk.project("a", resolver=resolver), find_links=[str(local)]).packages
        assert (asked.version, asked.index, asked.size) == ("9.0", "find-links", len(data))


def test_extra_indexes_are_named_and_asked_first(desk: Desk) -> None:
    extra = FakeIndex(desk.server, prefix="/internal")
    extra.add(make_wheel("ours", "1.0"))
    desk.wheel("ours", "9.0")  # somebody took the name on the public index
    desk.wheel("a", "1.0", requires=["ours"])
    locked = desk.lock(desk.project("a", extra_index_urls=(extra.url,)))
    assert {p.name: (p.version, p.index) for p in locked.packages} == {
        "a": ("1.0", "default"),
        "ours": ("1.0", "extra-1"),
    }


@both_resolvers
def test_builds_for_the_accelerator_are_taken_from_find_links(desk: Desk, tmp_path: Path, resolver: str) -> None:
    desk.wheel("torch", "2.15.0")
    for version in ("2.12.0+cpu", "2.13.0+cpu", "2.14.0+cu126"):
        name, data = make_wheel("torch", version)
        (tmp_path / name).write_bytes(data)
    project = desk.project("torch", accelerator="cpu", resolver=resolver)
    cpu = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36", accelerator="cpu")
    (torch,) = desk.lock(project, cpu, find_links=[str(tmp_path)]).packages
    assert (torch.version, torch.index) == ("2.13.0+cpu", "find-links")


def test_pip_tools_says_that_it_has_no_torch_index(desk: Desk) -> None:
    desk.wheel("torch", "2.15.0")
    cpu = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36", accelerator="cpu")
    with pytest.raises(ResolveError, match="accelerator = 'cpu'") as caught:
        desk.lock(desk.project("torch", resolver="pip-tools"), cpu)
    assert "--find-links" in str(caught.value.hint)


@pytest.mark.parametrize("query", ["token=S3cret", "a=1&X-Amz-Signature=S3cret", "sig=S3cret", "API_KEY=S3cret"])
def test_no_signed_address_becomes_part_of_a_lock(desk: Desk, query: str) -> None:
    name, data = make_wheel("direct", "1.0")
    desk.server.files[f"/files/{name}"] = desk.server.files[f"/files/{name}?{query}"] = data
    with pytest.raises(LockError, match="secret into the lock") as problem:
        desk.lock(desk.project(f"direct @ {desk.server.url}/files/{name}?{query}"))
    assert "S3cret" not in problem.value.message


def test_direct_addresses(desk: Desk) -> None:
    name, data = make_wheel("direct", "1.0")
    desk.server.files[f"/else/{name}"] = data
    url = f"{desk.server.url}/else/{name}"
    for resolver in ("uv", "pip-tools"):
        for line in (f"direct @ {url}", url):
            (package,) = desk.lock(desk.project(line, resolver=resolver)).packages
            assert package == Package(
                name="direct",
                version="1.0",
                filename=name,
                sha256=sha256(data),
                size=len(data),
                index="direct",
                url=url,
                wanted_by=("requirements.txt:1",),
            )


@pytest.mark.parametrize(("resolver", "named"), [("uv", True), ("uv", False), ("pip-tools", False)])
def test_repositories_are_pinned_to_a_commit(
    desk: Desk, tmp_path: Path, need: Callable[[str], str], resolver: str, named: bool
) -> None:
    need("git")
    repository = tmp_path / "tool.git"
    (repository / "sub").mkdir(parents=True)
    project = "[project]\nname = 'tool'\nversion = '1.0'\ndependencies = ['dep']\n"
    (repository / "sub/pyproject.toml").write_text(PYPROJECT + project)
    (repository / "sub/PKG-INFO").write_text("Metadata-Version: 2.2\nName: tool\nVersion: 1.0\nRequires-Dist: dep\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "1"], ["tag", "v1"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    commit = head.stdout.strip()
    desk.wheel("dep", "1.0")
    desk.wheel("backend", "1.0", files={"backend.py": BACKEND})
    address = f"git+{repository.as_uri()}@v1#subdirectory=sub"
    locked = desk.lock(desk.project(f"tool @ {address}" if named else address, resolver=resolver))
    assert [package.name for package in locked.build_packages] == ["backend"]
    assert [package.name for package in locked.packages] == ["dep", "tool"]
    assert locked.packages[1] == Package(
        name="tool",
        version="1.0",
        filename=f"tool-{commit}.git",
        sha256="",
        index="git",
        url=repository.as_uri(),
        commit=commit,
        subdirectory="sub",
        requires=("dep",),
        wanted_by=("requirements.txt:1",),
    )


def test_a_wheel_of_the_project_is_locked_by_its_place_in_it(desk: Desk, tmp_path: Path) -> None:
    name, data = make_wheel("local", "1.0")
    (desk.root / name).write_bytes(data)
    (package,) = desk.lock(desk.project(f"./{name}")).packages
    assert (package.index, package.url, package.sha256) == ("direct", name, sha256(data))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LockError, match="outside the project"):
        desk.lock(desk.project(f"../{name}"))


def test_pip_itself_is_locked_unless_unwanted(desk: Desk) -> None:
    desk.wheel("pip", "26.0")
    assert desk.lock(desk.project()).packages == ()
    (pip,) = desk.lock(desk.project(pip=True)).packages
    assert pip.wanted_by == ("mlbox (settings.pip)",)


def test_pip_tools_with_extra_indexes_is_warned_about(desk: Desk) -> None:
    extra = FakeIndex(desk.server, prefix="/internal")
    desk.wheel("a", "1.0")
    desk.lock(desk.project("a", resolver="pip-tools", extra_index_urls=(extra.url,)))
    assert any("dependency confusion" in note for note in desk.notes)


def test_sizes_come_from_the_page_when_it_has_them(desk: Desk) -> None:
    desk.index = FakeIndex(desk.server, prefix="/json", as_json=True)
    data = desk.wheel("a", "1.0")
    (package,) = desk.lock(desk.project("a")).packages
    assert package.size == len(data)


def test_annotated_output_is_read() -> None:
    pins = parse_pins(
        "a==1.0\n    # via\n    #   -r in.txt\n    #   b\n    # from https://h/s\n"
        "b==2.0 ; python_version > '3'\n    # via -r in.txt\nc @ https://h/c.whl\n    # via b\n"
    )
    assert {name: pin.version for name, pin in pins.items()} == {"a": "1.0", "b": "2.0", "c": ""}
    assert "b" in pins["a"].via
    assert pins["a"].source == "https://h/s"
    assert pins["c"].via == ["b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a", "these are not: a"),
        ("b>=1.0 --hash=sha256:HASH", "these are not: b>=1.0"),
        ("b==1.0,<2 --hash=sha256:HASH", "these are not: b==1.0,<2"),
        ("b @ git+https://g.example/b", "these are not: b @ git"),
        ("b @ https://i.example/b-1.0-py3-none-any.whl", "these are not: b @ https"),
        ("a==1.0 --hash=sha256:HASH", "no hash for b"),
        (f"b==1.0 --hash=sha512:{'0' * 128}", "no hash for b"),
    ],
    ids=["no version", "range", "two", "git", "address", "dependency", "other hash"],
)
def test_one_hash_makes_pip_strict(desk: Desk, line: str, message: str) -> None:
    """Nothing is resolved to what the file does not name."""
    wheel = desk.wheel("a", "1.0", requires=["b"])
    desk.wheel("b", "1.0"), desk.wheel("b", "2.0")
    first = f"a==1.0 --hash=sha256:{sha256(wheel)}"
    with pytest.raises(ResolveError) as problem:
        desk.lock(desk.project(first, line.replace("HASH", sha256(wheel))))
    assert message in problem.value.message
    assert "--generate-hashes" in str(problem.value.hint)


def test_hashed_pins_are_taken_as_they_are(desk: Desk) -> None:
    """Older versions, another machine's lines, mlbox's own pip, and a build that the accelerator would not choose."""
    a = desk.wheel("a", "1.0", requires=["torch"])
    torch = desk.wheel("torch", "1.0")
    desk.wheel("a", "2.0"), desk.wheel("torch", "2.0"), desk.wheel("pip", "26.0")
    project = desk.project(
        f"a==1.0 --hash=sha256:{sha256(a)}",
        f"torch==1.0 --hash=sha256:{sha256(torch)}",
        "winonly ; sys_platform == 'win32'",
        accelerator="cpu",
        pip=True,
    )
    assert versions(desk.lock(project)) == {"a": "1.0", "torch": "1.0", "pip": "26.0"}


def test_required_hashes_are_required_of_all(desk: Desk) -> None:
    wheel = desk.wheel("a", "1.0", requires=["b"])
    other = desk.wheel("b", "1.0")
    index = IndexOptions(require_hashes=True)
    lines = [f"a==1.0 --hash=sha256:{sha256(wheel)}", f"b==1.0 --hash=sha256:{sha256(other)}"]
    assert versions(desk.lock(desk.project(*lines, index=index))) == {"a": "1.0", "b": "1.0"}
    with pytest.raises(ResolveError, match="no hash for b"):
        desk.lock(desk.project(lines[0], index=index))


def test_a_pinned_package_comes_from_its_index_only(desk: Desk) -> None:
    """And nothing else comes from there, whatever it has."""
    ours = FakeIndex(desk.server, prefix="/ours")
    ours.add(make_wheel("private", "1.0", requires=["common"]))
    ours.add(make_wheel("common", "9.0"))
    desk.wheel("private", "66.6")
    desk.wheel("common", "1.0")
    pins = (
        IndexPin(package="private", index="ours", url=ours.url),
        IndexPin(package="common", index="ours", url=ours.url, marker="sys_platform == 'win32'"),
    )
    locked = desk.lock(desk.project("private", index=IndexOptions(pins=pins)))
    assert [(one.name, one.version, one.index) for one in locked.packages] == [
        ("common", "1.0", "default"),
        ("private", "1.0", "pinned-1"),
    ]

    with pytest.raises(ResolveError, match="gone is to come from index 'ours', which does not have it"):
        pins = (IndexPin(package="gone", index="ours", url=ours.url),)
        desk.lock(desk.project("common", index=IndexOptions(pins=pins)))
    with pytest.raises(ResolveError, match="pip-tools cannot take a package from one index only"):
        pins = (IndexPin(package="private", index="ours", url=ours.url),)
        desk.lock(desk.project("private", index=IndexOptions(pins=pins), resolver="pip-tools"))


def test_overrides_replace_what_packages_ask_for(desk: Desk) -> None:
    """uv's way out of requirements that contradict one another."""
    desk.wheel("app", "1.0", requires=["dep<2"])
    desk.wheel("dep", "1.0")
    desk.wheel("dep", "2.0")
    override = Requirement(text="dep>=2", origin="pyproject.toml [tool.uv.override-dependencies]")
    project = msgspec.structs.replace(desk.project("app"), overrides=(override,))
    assert versions(desk.lock(project)) == {"app": "1.0", "dep": "2.0"}
    other = msgspec.structs.replace(project, settings=Settings(resolver="pip-tools", index_url=desk.index.url))
    with pytest.raises(ResolveError, match="pip-tools cannot override"):
        desk.lock(other)


def test_an_index_without_pip(desk: Desk) -> None:
    """Nobody asked for it, so the hint says who did and how to do without."""
    desk.wheel("x", "1.0")
    with pytest.raises(ResolveError, match="pip was not found") as caught:
        desk.lock(desk.project("x", pip=True))
    assert "pip = false" in str(caught.value.hint)


def test_the_index_that_was_not_reached_is_named() -> None:
    """One that a requirements file adds is not the default, whose place the user would look at in vain."""
    default = Index(name="default", url="https://index.example.org/simple")
    extra = Index(name="extra-1", url="https://me:hunter2@extra.example.org/whl/cu117")
    question = Question(
        requirements=("x",), target=TARGET, indexes=Indexes(default=default, extra=(extra,), origin="pip's default")
    )
    for url, hint in [
        ("https://extra.example.org/whl/cu117/fvcore/", "it is https://extra.example.org/whl/cu117"),
        ("https://index.example.org/simple/x/", "it is https://index.example.org/simple (from pip's default)"),
    ]:
        problem = explain(f"error: Failed to fetch: {url}", question, Path("/tmp"))
        assert str(problem.hint).endswith(hint)
