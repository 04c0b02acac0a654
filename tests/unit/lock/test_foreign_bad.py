"""Locks that are damaged, unknown or hostile: one clear error each, and nothing is looked at outside of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbox.errors import LockError
from mlbox.lock.foreign.importing import read_foreign, reader_of
from mlbox.lock.foreign.model import Selection
from mlbox.lock.model import Target
from mlbox.project.discover import load_project

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
A = "a" * 64
KINDS = ("uv", "poetry", "pdm", "pipenv", "pylock")

HEADS = {
    "uv": 'version = 1\n[[package]]\nname = "app"\nsource = { virtual = "." }\ndependencies = [{ name = "x" }]\n',
    "poetry": '[metadata]\nlock-version = "2.1"\npython-versions = "*"\ncontent-hash = ""\n',
    "pdm": '[metadata]\nlock_version = "4.5.0"\nstrategy = ["inherit_metadata"]\n',
    "pylock": 'lock-version = "1.0"\ncreated-by = "test"\n',
}
"""What makes a document a lock that has one package, 'x'."""


def read(kind: str, data: bytes | str, **selection: Any) -> Any:
    data = data.encode() if isinstance(data, str) else data
    return reader_of(kind)(data, Selection(target=TARGET, **selection))


def refused(kind: str, data: bytes | str, **selection: Any) -> str:
    """Return the words of the refusal."""
    with pytest.raises(LockError) as problem:
        read(kind, data, **selection)
    assert "secret" not in problem.value.message + (problem.value.hint or "")
    assert len(problem.value.message) < 2000
    return problem.value.message


GOOD = {
    "uv": f"""{HEADS["uv"]}[[package]]
name = "x"
version = "1.0"
source = {{ registry = "https://i.example" }}
wheels = [{{ url = "https://i.example/x-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
""",
    "poetry": f"""{HEADS["poetry"]}[[package]]
name = "x"
version = "1.0"
groups = ["main"]
files = [{{ file = "x-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
""",
    "pdm": f"""{HEADS["pdm"]}[[package]]
name = "x"
version = "1.0"
groups = ["default"]
files = [{{ file = "x-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
""",
    "pipenv": json.dumps(
        {"_meta": {"pipfile-spec": 6}, "default": {"x": {"version": "==1.0", "hashes": [f"sha256:{A}"]}}}
    ),
    "pylock": f"""{HEADS["pylock"]}[[packages]]
name = "x"
version = "1.0"
[[packages.wheels]]
url = "https://i.example/x-1.0-py3-none-any.whl"
hashes = {{ sha256 = "{A}" }}
""",
}

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_the_good_one(kind: str) -> None:
    """What the bad ones below are made from is read."""
    assert [pin.name for pin in read(kind, GOOD[kind]).pins] == ["x"]


@every_kind
def test_cut_anywhere(kind: str) -> None:
    """A part of a lock is a part of its packages or an error, never another exception."""
    text = GOOD[kind]
    for end in range(len(text)):
        try:
            read(kind, text[:end])
        except LockError as problem:
            assert kind == "pipenv" or "lock" in problem.message


@every_kind
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\xff\xfe\xfa",
        b"[[[[",
        b'"text"',
        b"[]",
        b"1",
        b"version = nan",
        b"[metadata]\nlock-version = 1",
    ],
    ids=["empty", "NUL", "no UTF-8", "brackets", "text", "list", "number", "nan", "number as version"],
)
def test_no_lock_at_all(kind: str, data: bytes) -> None:
    """Named by its file."""
    if (kind, data) == ("pipenv", b"[]") or data != b"":
        assert refused(kind, data)


@every_kind
def test_deep(kind: str) -> None:
    """Nesting ends in an error, not in the interpreter's."""
    deep = "[" * 100_000
    assert refused(kind, f'{{"default": {deep}' if kind == "pipenv" else f"{HEADS[kind]}x = {deep}")


@every_kind
def test_huge(kind: str) -> None:
    """50 MB are not parsed."""
    assert "larger than 32 MiB" in refused(kind, b"#" * (50 << 20))


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("uv", "version = 1\n", "version = 2\n", "has version 2, and this mlbox reads version 1"),
        ("uv", "version = 1\n", 'version = "1"\n', "Expected `int`, got `str` - at `$.version`"),
        ("poetry", '"2.1"', '"3.0"', "has version '3.0', and this mlbox reads 1.x and 2.x"),
        ("poetry", '"2.1"', '"0.9"', "has version '0.9'"),
        ("poetry", '"2.1"', '"two"', "has version 'two'"),
        ("pdm", '"4.5.0"', '"5.0"', "has version '5.0', and this mlbox reads 4.0 to 4.5"),
        ("pdm", '"4.5.0"', '"4.6"', "has version '4.6'"),
        ("pipenv", "6", "7", "has version 7, and this mlbox reads version 6"),
        ("pylock", '"1.0"', '"2.0"', "has version '2.0', and this mlbox reads version 1.0"),
    ],
)
def test_versions_that_are_not_known(kind: str, old: str, new: str, message: str) -> None:
    """Which one it has, and which one is read."""
    assert message in refused(kind, GOOD[kind].replace(old, new))


@pytest.mark.parametrize(("kind", "old", "new"), [("poetry", "2.1", "2.9"), ("pylock", '"1.0"', '"1.7"')])
def test_versions_that_are_newer_and_fit(kind: str, old: str, new: str) -> None:
    """What is safe is read, and what is not is said."""
    imported = read(kind, GOOD[kind].replace(old, new, 1))

    assert [pin.name for pin in imported.pins] == ["x"]
    assert "what is newer" in imported.notes[0]


HOSTILE_NAMES = ("../x", "/etc/passwd", "x/../../y", "-e", "x y", "", "x\\u0000", "ä", "x" * 300, "x;y")


@every_kind
@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_names_that_are_none(kind: str, name: str) -> None:
    """A package's name becomes part of paths and addresses."""
    text = GOOD[kind].replace('"x"', f'"{name}"')
    assert any(word in refused(kind, text) for word in ("is no name", "lock", "is not valid"))


HOSTILE_FILES = ("..", "../../x-1.0-py3-none-any.whl/..", "a b.whl", ".hidden.whl", "x%2F..%2Fy.whl", "x%00.whl", "")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pipenv"])
@pytest.mark.parametrize("name", HOSTILE_FILES, ids=range(len(HOSTILE_FILES)))
def test_file_names_that_are_paths(kind: str, name: str) -> None:
    """A file's name becomes one in the store."""
    text = GOOD[kind].replace("x-1.0-py3-none-any.whl", name)
    try:
        pins = read(kind, text).pins
    except LockError:
        return
    names = {file.filename for pin in pins for file in pin.files}
    assert not any(set(found) & set("/\0 ") or found in ("", "..") or found[0] == "." for found in names), names


PLACES = (
    "/etc/passwd",
    "../other",
    "libs/../../other",
    "file:///etc/passwd",
    "file://host/x.whl",
    "libs\\\\..\\\\x",
    "x\\u0000y",
    "",
)


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("uv", 'source = { path = "PLACE" }'),
        ("uv", 'source = { editable = "PLACE" }'),
        ("uv", 'source = { registry = "PLACE" }\nwheels = [{ path = "x-1.0-py3-none-any.whl", hash = "" }]'),
        ("poetry", 'groups = ["main"]\n[package.source]\ntype = "directory"\nurl = "PLACE"'),
        ("poetry", 'groups = ["main"]\n[package.source]\ntype = "file"\nurl = "PLACE"'),
        ("pdm", 'groups = ["default"]\npath = "PLACE"'),
        ("pylock", 'directory = { path = "PLACE" }'),
        ("pylock", f'archive = {{ path = "PLACE", hashes = {{ sha256 = "{A}" }} }}'),
        ("pipenv", '"path": "PLACE"'),
        ("pipenv", '"file": "PLACE"'),
    ],
    ids=["uv", "editable", "links", "poetry", "poetry file", "pdm", "pylock", "pylock file", "pipenv", "pipenv file"],
)
def test_places_outside_the_repository(kind: str, where: str, place: str) -> None:
    """Paths that climb, absolute ones, other machines."""
    entry = where.replace("PLACE", place)
    table = "packages" if kind == "pylock" else "package"
    text = f'{HEADS.get(kind)}[[{table}]]\nname = "x"\nversion = "1.0"\n{entry}\n'
    if kind == "pipenv":
        text = f'{{"default": {{"x": {{{entry}}}}}}}'
    if place == "" and kind in ("pdm", "pipenv", "uv"):
        with pytest.raises(LockError):
            if pins := read(kind, text).pins:
                assert not any(pin.url for pin in pins)
                raise LockError("nothing to take it from")
        return
    assert refused(kind, text)


ADDRESSES = (
    "ftp://i.example/x-1.0-py3-none-any.whl",
    "https:///x-1.0-py3-none-any.whl",
    "https://user:secret@[bad/x-1.0-py3-none-any.whl",
    "javascript:alert(1)//x-1.0.tar.gz",
    "-oProxyCommand=touch://x/x-1.0-py3-none-any.whl",
)


@pytest.mark.parametrize("place", ADDRESSES, ids=range(len(ADDRESSES)))
@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("uv", 'source = { url = "PLACE" }'),
        ("uv", f'source = {{ git = "PLACE#{"c" * 40}" }}'),
        ("uv", 'source = { registry = "https://i.example" }\nsdist = { url = "PLACE" }'),
        ("poetry", 'groups = ["main"]\n[package.source]\ntype = "url"\nurl = "PLACE"'),
        ("poetry", 'groups = ["main"]\n[package.source]\ntype = "legacy"\nurl = "PLACE"'),
        ("pdm", 'groups = ["default"]\nurl = "PLACE"'),
        ("pdm", f'groups = ["default"]\ngit = "PLACE"\nrevision = "{"c" * 40}"'),
        ("pylock", f'archive = {{ url = "PLACE", hashes = {{ sha256 = "{A}" }} }}'),
        ("pylock", f'vcs = {{ type = "git", url = "PLACE", commit-id = "{"c" * 40}" }}'),
        ("pipenv", f'"git": "PLACE", "ref": "{"c" * 40}"'),
    ],
    ids=["url", "git", "file", "poetry", "index", "pdm", "pdm git", "pylock", "pylock git", "pipenv git"],
)
def test_addresses_that_are_none(kind: str, where: str, place: str) -> None:
    """Only what can be fetched, and no password in the error."""
    entry = where.replace("PLACE", place)
    table = "packages" if kind == "pylock" else "package"
    text = f'{HEADS.get(kind)}[[{table}]]\nname = "x"\nversion = "1.0"\n{entry}\n'
    assert refused(kind, f'{{"default": {{"x": {{{entry}}}}}}}' if kind == "pipenv" else text)


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("uv", 'source = { git = "https://g.example/x#main" }'),
        ("uv", f'source = {{ git = "https://g.example/x?subdirectory=../..#{"c" * 40}" }}'),
        ("uv", 'source = { hg = "https://g.example/x" }'),
        (
            "poetry",
            'groups = ["main"]\nsource = { type = "git", url = "https://g.example/x", resolved_reference = "1" }',
        ),
        ("poetry", 'groups = ["main"]\n[package.source]\ntype = "hg"\nurl = "https://g.example/x"'),
        ("poetry", 'groups = ["main"]\nmarkers = "sys_platform =="'),
        ("poetry", 'groups = ["main"]\nmarkers = 5'),
        ("poetry", 'groups = ["main"]\n[package.dependencies]\ny = 5'),
        ("poetry", 'groups = ["main"]\n[package.dependencies]\ny = { version = 5 }'),
        ("poetry", 'groups = ["main"]\n[package.dependencies]\ny = { extras = "z" }'),
        ("pdm", 'groups = ["default"]\ngit = "https://g.example/x"\nrevision = "main"'),
        ("pdm", 'groups = ["default"]\ndependencies = ["y=="]'),
        ("pylock", 'vcs = { type = "hg", url = "https://g.example/x", commit-id = "1" }'),
        ("pylock", 'vcs = { type = "git", path = "libs/x", commit-id = "1" }'),
        ("pipenv", '"git": "https://g.example/x", "ref": "main"'),
        ("pipenv", '"version": "*"'),
        ("pipenv", '"version": "==1.*"'),
        ("pipenv", '"version": 1'),
        ("pipenv", '"version": "==1", "hashes": "sha256"'),
    ],
)
def test_what_is_not_pinned_or_not_known(kind: str, where: str) -> None:
    """Branches, other version control, half markers, wrong types."""
    table = "packages" if kind == "pylock" else "package"
    text = f'{HEADS.get(kind)}[[{table}]]\nname = "x"\nversion = "1.0"\n{where}\n'
    assert refused(kind, f'{{"default": {{"x": {{{where}}}}}}}' if kind == "pipenv" else text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "x" }', 'name = "y" }', "has no package 'y'"),
        ('{ name = "x" }', '{ name = "x", version = "2" }', "has no package 'x' 2"),
        ('"."', '"sub"', "is not the lock of a project"),
        (
            "version = 1\n",
            'version = 1\nrequires-python = ">=3.12"\n',
            "is for Python >=3.12, and the image has 3.11.2",
        ),
        ("version = 1\n", 'version = 1\nrequires-python = "new"\n', "names no versions of Python"),
        ("version = 1\n", "version = 1\nsupported-markers = [\"sys_platform == 'win32'\"]\n", "was made only for"),
        ("version = 1\n", "version = 1\nsupported-markers = ['os ==']\n", "is no environment marker"),
    ],
)
def test_uv_locks_that_contradict_themselves(old: str, new: str, message: str) -> None:
    """Each says what is wrong."""
    assert message in refused("uv", GOOD["uv"].replace(old, new))


def test_one_package_twice() -> None:
    """Two versions for one machine cannot both be installed."""
    again = {kind: GOOD[kind][len(HEADS[kind]) :].replace("1.0", "2.0") for kind in ("poetry", "pdm", "pylock")}
    for kind, more in again.items():
        assert any(word in refused(kind, GOOD[kind] + more) for word in ("there twice", "Multiple packages"))


@every_kind
def test_names_that_a_lock_does_not_have(kind: str) -> None:
    """A group or extra that is asked for and not there is no empty one."""
    assert "other" in refused(kind, GOOD[kind], groups=("other",))
    assert "other" in refused(kind, GOOD[kind], extras=("other",)) or kind == "pdm"


@pytest.mark.parametrize(("kind", "file"), [("uv", "uv.lock"), ("pylock", "pylock.toml"), ("poetry", "poetry.lock")])
def test_an_address_where_none_belongs(kind: str, file: str, tmp_path: Path) -> None:
    """It is shown, as what it is not; its password is not."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "app"\nversion = "1"\ndependencies = ["x"]\n')
    text = GOOD[kind].replace('name = "x"', 'name = "https://me:secret@example.org/x"')
    (tmp_path / file).write_text(text)
    project = load_project(tmp_path, requirements=(file,))
    assert project.foreign
    with pytest.raises(LockError, match=r"https://example\.org/x") as problem:
        read_foreign(project, project.foreign, TARGET)
    assert "secret" not in problem.value.message


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from(["_meta", "default", "x", "version", "hashes", "markers", "git", "path"]), value=_VALUES)
def test_any_value_anywhere(key: str, value: Any) -> None:
    """Of JSON, which says everything: a result or a LockError."""
    document = json.loads(GOOD["pipenv"])
    for table in (document, document["default"], document["default"]["x"]):
        if key in table:
            table[key] = value
            break
    else:
        document["default"]["x"][key] = value
    try:
        read("pipenv", json.dumps(document))
    except LockError as problem:
        assert problem.message
