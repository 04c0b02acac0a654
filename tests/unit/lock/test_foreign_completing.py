"""From a foreign lock to packages of ours: what is asked of whom, and what then stands in the lock."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.index import FakeIndex, make_sdist, make_wheel, sha256
from fakes.server import Reply, Server, serving
from msgspec.structs import replace

from mlbox.errors import FetchError, LockError
from mlbox.http import Http, Limits
from mlbox.lock.file import decode_lock, encode_lock
from mlbox.lock.foreign.importing import has_files_for
from mlbox.lock.model import Base, Lock, Package, Target
from mlbox.lock.python.choosing import url_hint
from mlbox.lock.python.resolve import LockedPython, lock_python
from mlbox.paths import Home
from mlbox.project.discover import load_project

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")


class Desk:
    """A project's folder, an index, and the call that locks."""

    def __init__(self, server: Server, root: Path, home: Home) -> None:
        self.server = server
        self.root = root
        self.home = home
        self.index = FakeIndex(server, as_json=True)
        self.notes: list[str] = []
        self.write("mlbox.toml", f'index-url = "{self.index.url}"\naccelerator = "default"\n')

    def step(self, what: str) -> None: ...
    def expect(self, what: str, total: int) -> None: ...
    def advance(self, what: str, amount: int) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)

    def write(self, name: str, text: str | bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def wheel(self, name: str, version: str, **kw: Any) -> bytes:
        return self.index.add(make_wheel(name, version, **kw))

    def lock(self, **kw: Any) -> LockedPython:
        http = Http(limits=Limits(connect=60, read=60, attempts=2), sleep=lambda seconds: None)
        return lock_python(load_project(self.root), TARGET, http=http, listener=self, home=self.home, **kw)


@pytest.fixture
def desk(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    import os

    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache/uv"))
    (tmp_path / "project").mkdir()
    with serving() as server:
        yield Desk(server, tmp_path / "project", home)


def pipfile_lock(**packages: Any) -> str:
    return json.dumps({"_meta": {"pipfile-spec": 6}, "default": packages})


def previous(locked: LockedPython) -> Lock:
    return Lock(inputs="0" * 64, target=TARGET, base=Base(suite="bookworm"), packages=locked.packages)


def pylock(*packages: str) -> str:
    return 'lock-version = "1.0"\ncreated-by = "test"\n' + "".join(f"[[packages]]\n{one}\n" for one in packages)


def test_a_lock_that_says_everything_asks_nobody(desk: Desk) -> None:
    """Not even a size: one file per package, its address kept outside the lock."""
    wheels = "".join(
        f'[[packages.wheels]]\nurl = "https://user:secret@i.example/x-1.0-{tag}.whl"\nsize = 5\n'
        f'hashes = {{ sha256 = "{number * 64}" }}\n'
        for number, tag in (
            ("a", "py3-none-any"),
            ("b", "cp311-cp311-manylinux_2_17_x86_64"),
            ("c", "cp311-cp311-win32"),
        )
    )
    desk.write("pylock.toml", pylock(f'name = "x"\nversion = "1.0"\n{wheels}'))
    locked = desk.lock()

    assert locked.packages == (
        Package(
            name="x",
            version="1.0",
            filename="x-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
            sha256="b" * 64,
            size=5,
            wanted_by=("pylock.toml",),
        ),
    )
    assert desk.server.requests == []
    assert url_hint(desk.home, "b" * 64).read_text() == "https://i.example/x-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"


def test_hashes_become_files_by_one_page_each(desk: Desk) -> None:
    """The best file of those that are locked, and no request more; a second lock asks nobody."""
    other, good = desk.wheel("x", "1.0", tag="cp311-cp311-linux_x86_64"), desk.wheel("x", "1.0")
    sdist = desk.index.add(make_sdist("x", "1.0"))
    y = desk.wheel("y", "2.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    hashes = {"x": [sha256(sdist), sha256(good), sha256(b"gone")], "y": [sha256(y)]}
    versions = {"x": "==1.0", "y": "==2.0"}
    packages = {n: {"version": versions[n], "hashes": [f"sha256:{h}" for h in hashes[n]]} for n in hashes}
    desk.write("Pipfile.lock", pipfile_lock(**packages))
    locked = desk.lock()

    assert [(one.filename, one.sha256, one.size) for one in locked.packages] == [
        ("x-1.0-py3-none-any.whl", sha256(good), len(good)),
        ("y-2.0-cp311-cp311-manylinux_2_17_x86_64.whl", sha256(y), len(y)),
    ]
    assert sha256(other) not in hashes["x"]
    assert sorted(path for path in desk.server.paths() if path.endswith("/")) == ["/simple/x/", "/simple/y/"]
    desk.server.requests.clear()
    assert desk.lock(previous=previous(locked)) == locked
    assert desk.server.requests == []


def test_who_asks_for_whom_is_the_wheels_word(desk: Desk) -> None:
    """Where the lock does not say it: extras that are asked for count, other machines' do not."""
    requires = ("core>=1", "speed; extra == 'fast'", "winonly; sys_platform == 'win32'", "not a line; ;")
    wheels = {"web": desk.wheel("web", "1.0"), "core": desk.wheel("core", "1.0"), "speed": desk.wheel("speed", "1.0")}
    metadata = "Metadata-Version: 2.1\nName: web\nVersion: 1.0\n" + "".join(f"Requires-Dist: {r}\n" for r in requires)
    desk.server.files["/files/web-1.0-py3-none-any.whl.metadata"] = metadata.encode()
    desk.write("Pipfile", '[packages]\nweb = {version = "*", extras = ["fast"]}\n')
    entries = {n: {"version": "==1.0", "hashes": [f"sha256:{sha256(data)}"]} for n, data in wheels.items()}
    desk.write("Pipfile.lock", pipfile_lock(**entries))
    locked = desk.lock()

    assert {one.name: one.requires for one in locked.packages} == {"core": (), "speed": (), "web": ("core", "speed")}
    assert next(one for one in locked.packages if one.name == "web").wanted_by == ("Pipfile [packages]",)
    del desk.server.files["/files/web-1.0-py3-none-any.whl.metadata"]
    assert desk.lock(previous=previous(locked)) == locked


def test_what_a_lock_names_and_an_index_does_not_have(desk: Desk) -> None:
    """A replaced or removed file is an error that says which, never another file."""
    desk.wheel("x", "1.0")
    desk.write("Pipfile.lock", pipfile_lock(x={"version": "==1.0", "hashes": [f"sha256:{'a' * 64}"]}))

    with pytest.raises(LockError, match=r"x 1\.0: no index has a file .* with one of the hashes in Pipfile\.lock"):
        desk.lock()
    desk.write("Pipfile.lock", pipfile_lock(unknown={"version": "==1.0", "hashes": [f"sha256:{'a' * 64}"]}))
    with pytest.raises(FetchError, match="unknown: no index knows it"):
        desk.lock()
    desk.server.behave = lambda request: Reply(b"", 500)
    with pytest.raises(FetchError, match="500"):
        desk.lock()


def test_no_hash_at_all_is_refused(desk: Desk) -> None:
    """Ours lock by sha256: nothing is taken on trust."""
    desk.wheel("x", "1.0")
    desk.write("Pipfile.lock", pipfile_lock(x={"version": "==1.0"}, y={"version": "==1.0", "hashes": ["md5:1"]}))

    with pytest.raises(LockError, match=r"Pipfile\.lock: names no sha256 of x, y"):
        desk.lock()
    assert desk.server.requests == []


def test_no_file_for_this_machine(desk: Desk) -> None:
    """It says which package, whoever notices."""
    wheel = f'url = "https://i.example/x-1.0-cp39-cp39-win32.whl"\nhashes = {{ sha256 = "{"a" * 64}" }}\n'
    desk.write("pylock.toml", pylock(f'name = "x"\nversion = "1.0"\n[[packages.wheels]]\n{wheel}'))

    with pytest.raises(LockError, match="No wheel found matching the provided tags for package 'x'"):
        desk.lock()
    lock = f"""[metadata]
lock-version = "2.1"
[[package]]
name = "x"
version = "1.0"
groups = ["main"]
files = [{{ file = "x-1.0-cp39-cp39-win32.whl", hash = "sha256:{"a" * 64}" }}]
"""
    (desk.root / "pylock.toml").unlink()
    desk.write("pyproject.toml", "[tool.poetry]\n")
    desk.write("poetry.lock", lock)
    desk.wheel("x", "1.0")
    with pytest.raises(LockError, match=r"poetry\.lock: has no file for Python 3\.11 on amd64 of x 1\.0") as refused:
        desk.lock()
    assert "lock again" in str(refused.value.hint)
    assert desk.server.requests == []


def test_an_address_with_a_query(desk: Desk) -> None:
    """What follows the file's name belongs to the server, and no message shows it."""
    desk.write("pyproject.toml", '[project]\nname = "p"\nversion = "1"\ndependencies = ["x"]\n')
    lock = (
        'version = 1\nrequires-python = ">=3.9"\n'
        '[[package]]\nname = "p"\nversion = "1"\nsource = { virtual = "." }\ndependencies = [{ name = "x" }]\n'
        '[package.metadata]\nrequires-dist = [{ name = "x" }]\n'
        '[[package]]\nname = "x"\nversion = "1.0"\nsource = { registry = "https://i.example/simple" }\n'
        'wheels = [{ url = "https://i.example/x-1.0-py3-none-any.whl?key=s3cret", '
        f'hash = "sha256:{"a" * 64}", size = 1 }}]\n'
    )
    desk.write("uv.lock", lock)
    assert [one.filename for one in desk.lock().packages] == ["x-1.0-py3-none-any.whl"]
    desk.write("uv.lock", lock.replace("x-1.0-py3-none-any.whl?", "x y?"))
    with pytest.raises(LockError) as refused:
        desk.lock()
    assert "s3cret" not in str(refused.value)


def test_files_for_another_python(desk: Desk) -> None:
    """What mends it is the Python whose files the lock has: locking again would not need to move anything."""
    desk.write("pyproject.toml", '[project]\nname = "p"\nversion = "1"\ndependencies = ["x"]\n')
    wheels = ", ".join(
        f'{{ url = "https://i.example/x-1.0-{tag}-manylinux_2_17_x86_64.whl", hash = "sha256:{"a" * 64}" }}'
        for tag in ("cp39-cp39", "cp312-cp312", "cp313-cp313")
    )
    desk.write(
        "uv.lock",
        'version = 1\nrequires-python = ">=3.9"\n'
        '[[package]]\nname = "p"\nversion = "1"\nsource = { virtual = "." }\ndependencies = [{ name = "x" }]\n'
        '[package.metadata]\nrequires-dist = [{ name = "x" }]\n'
        '[[package]]\nname = "x"\nversion = "1.0"\nsource = { registry = "https://i.example/simple" }\n'
        f"wheels = [{wheels}]\n",
    )
    with pytest.raises(LockError, match=r"uv\.lock: has no file for Python 3\.11 on amd64 of x 1\.0") as refused:
        desk.lock()
    assert 'python = "3.13" into' in str(refused.value.hint)
    desk.write("uv.lock", (desk.root / "uv.lock").read_text().replace("cp313", "cp310").replace("cp39", "cp38"))
    with pytest.raises(LockError) as refused:
        desk.lock()
    assert 'python = "3.12" and base = "docker.io/library/python:3.12-slim"' in str(refused.value.hint)
    project = load_project(desk.root)
    assert [
        python
        for python in ("3.9", "3.11", "3.12", "3.13")
        if has_files_for(project, replace(TARGET, python=python, python_full=f"{python}.1"))
    ] == ["3.12"]


def test_files_of_the_repository(desk: Desk) -> None:
    """By their path, with the hash that they have; one that was changed or is not there is refused."""
    filename, data = make_wheel("x", "1.0")
    desk.write(f"libs/{filename}", data)
    archive = f'archive = {{ path = "libs/{filename}", hashes = {{ sha256 = "{sha256(data)}" }} }}'
    desk.write("locks/pylock.toml", pylock(f'name = "x"\nversion = "1.0"\n{archive}'))
    desk.write("pylock.toml", pylock(f'name = "x"\nversion = "1.0"\n{archive}'))
    found = desk.lock().packages[0]

    assert (found.url, found.index, found.sha256, found.size) == (
        f"libs/{filename}",
        "direct",
        sha256(data),
        len(data),
    )
    desk.write(f"libs/{filename}", data + b"x")
    with pytest.raises(LockError, match="is not the file that was locked"):
        desk.lock()
    (desk.root / "libs" / filename).unlink()
    with pytest.raises(LockError, match="is not there"):
        desk.lock()
    (desk.root / "libs" / filename).symlink_to("/etc/hostname")
    with pytest.raises(LockError, match="leaves the repository"):
        desk.lock()


def test_indexes_by_name(desk: Desk) -> None:
    """The address in the lock becomes the name of ours with that address."""
    places = {"a": desk.index.url, "b": "https://other.example/simple/", "c": "https://t.example/whl/cu126"}
    places |= {"d": "https://user:secret@extra.example/simple"}
    packages = [
        f'name = "{name}"\nversion = "1.0"\nindex = "{url}"\n[[packages.wheels]]\nsize = 1\n'
        f'url = "https://i.example/{name}-1.0-py3-none-any.whl"\nhashes = {{ sha256 = "{"a" * 64}" }}\n'
        for name, url in places.items()
    ]
    desk.write("pylock.toml", pylock(*packages))
    settings = f'index-url = "{desk.index.url}"\nextra-index-urls = ["https://extra.example/simple"]\n'
    desk.write("mlbox.toml", settings)

    locked = desk.lock()
    assert {one.name: one.index for one in locked.packages} == {
        "a": "default",
        "b": "default",
        "c": "torch",
        "d": "extra-1",
    }
    lock = previous(locked)
    assert b"secret" not in encode_lock(lock)
    assert decode_lock(encode_lock(lock)) == lock


def test_upgrading_is_the_owners(desk: Desk) -> None:
    """It is said, and nothing moves."""
    desk.write("pyproject.toml", '[project]\nname = "app"\nversion = "1"\ndependencies = []\n')
    desk.write("uv.lock", 'version = 1\n[[package]]\nname = "app"\nsource = { virtual = "." }\n')

    assert desk.lock(upgrade=True).packages == ()
    assert desk.notes[-1] == "uv.lock decides the Python packages' versions: 'uv lock --upgrade' moves them"
    desk.lock(upgrade=["numpy"])
    assert desk.notes[-1] == "uv.lock decides the version of numpy: 'uv lock --upgrade-package numpy' moves it"
    desk.lock(upgrade=["numpy", "six"])
    assert desk.notes[-1] == "uv.lock decides the versions of numpy, six: 'uv lock --upgrade' moves them"


def test_the_owners_command_mends_what_is_damaged(desk: Desk) -> None:
    """Whatever is wrong with it."""
    desk.write("pyproject.toml", '[project]\nname = "app"\nversion = "1"\ndependencies = ["x"]\n')
    desk.write("uv.lock", 'version = 1\n[[package]]\nname = "app"\nsource = { virtual = "." }\n')

    with pytest.raises(LockError, match=r"x is asked for") as problem:
        desk.lock()
    assert problem.value.hint == "run 'uv lock'"
    desk.write("uv.lock", "version = [")
    with pytest.raises(LockError, match=r"uv\.lock: ") as problem:
        desk.lock()
    assert problem.value.hint == "'uv lock' makes it again"


def test_an_sdist_is_built_with_what_it_needs(desk: Desk) -> None:
    """As when mlbox resolves: its build requirements are locked beside."""
    pyproject = "[build-system]\nrequires=['backend>=1']\nbuild-backend='backend'\n"
    sdist = desk.index.add(make_sdist("x", "1.0", pyproject=pyproject))
    desk.wheel("backend", "1.0")
    desk.write("Pipfile.lock", pipfile_lock(x={"version": "==1.0", "hashes": [f"sha256:{sha256(sdist)}"]}))
    locked = desk.lock()

    assert [one.filename for one in locked.packages] == ["x-1.0.tar.gz"]
    assert [one.filename for one in locked.build_packages] == ["backend-1.0-py3-none-any.whl"]


def test_pip_comes_only_from_the_lock(desk: Desk) -> None:
    """The environment is that lock's, nothing besides."""
    desk.write("Pipfile.lock", pipfile_lock())

    assert desk.lock() == LockedPython((), ())
    assert desk.server.requests == []


def test_the_lock_may_change_meanwhile(desk: Desk) -> None:
    """What is read is what was counted in."""
    desk.write("Pipfile.lock", pipfile_lock())
    project = load_project(desk.root)
    desk.write("Pipfile.lock", pipfile_lock() + " ")

    with pytest.raises(LockError, match="changed while it was read"):
        lock_python(project, TARGET, home=desk.home)


def test_the_project_itself_is_no_dependency(desk: Desk) -> None:
    """Pipenv and PEP 751 name it as a folder."""
    desk.write("Pipfile.lock", pipfile_lock(app={"path": ".", "editable": True}))
    assert desk.lock().packages == ()
    desk.write("Pipfile.lock", pipfile_lock(lib={"path": "./libs/lib"}))
    with pytest.raises(LockError, match=r"Pipfile\.lock: lib: libs/lib is not there"):
        desk.lock()


def test_offline_a_file_without_a_size_is_enough(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and hash make it the same file anywhere."""
    monkeypatch.setenv("MLBOX_OFFLINE", "1")
    digest = hashlib.sha256(b"x").hexdigest()
    desk.write("pyproject.toml", "[tool.poetry]\n")
    desk.write(
        "poetry.lock",
        '[metadata]\nlock-version = "2.1"\n[[package]]\nname = "x"\nversion = "1.0"\ngroups = ["main"]\n'
        f'files = [{{ file = "x-1.0-py3-none-any.whl", hash = "sha256:{digest}" }}]\n',
    )
    assert [(one.sha256, one.size) for one in desk.lock().packages] == [(digest, 0)]


def test_a_file_of_another_package(desk: Desk) -> None:
    """A lock that was made to mislead: the name says one thing, the file is another."""
    wheel = f'url = "https://i.example/evil-1.0-py3-none-any.whl"\nsize = 1\nhashes = {{ sha256 = "{"a" * 64}" }}\n'
    archive = wheel.replace("\n", ", ").rstrip(", ")
    desk.write("pylock.toml", pylock(f'name = "x"\nversion = "1.0"\narchive = {{ {archive} }}'))

    with pytest.raises(LockError, match=r"x 1\.0 would be evil-1\.0-py3-none-any\.whl"):
        desk.lock()


def test_versions_that_a_lock_leaves_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's name says it; of a repository the resolver is asked, for it alone."""
    from mlbox.lock.python import resolve
    from mlbox.lock.python.model import Pinned, Question

    asked = []

    def resolver(question: Question) -> tuple[Pinned, ...]:
        asked.append(question.requirements)
        return tuple(Pinned(name=name, version="3.1") for name in ("other", "repo"))

    monkeypatch.setattr(resolve, "_resolver", lambda *args: resolver)
    monkeypatch.setattr(resolve, "_sources", lambda *args: {})
    desk.write(
        "Pipfile.lock",
        pipfile_lock(
            repo={"git": "https://g.example/repo", "ref": "c" * 40, "subdirectory": "py"},
            direct={"file": "https://i.example/direct-2.5-py3-none-any.whl", "hashes": [f"sha256:{'a' * 64}"]},
        ),
    )
    assert {one.name: one.version for one in desk.lock().packages} == {"direct": "2.5", "repo": "3.1"}
    assert asked == [(f"repo @ git+https://g.example/repo@{'c' * 40}#subdirectory=py",)]
