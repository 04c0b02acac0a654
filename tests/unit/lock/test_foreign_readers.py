"""What each reader takes from a lock, by locks as their tools write them."""

import json
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from mlbox.errors import LockError
from mlbox.lock.foreign.constraint import admits
from mlbox.lock.foreign.importing import reader_of
from mlbox.lock.foreign.model import Imported, Selection
from mlbox.lock.foreign.reading import Markers
from mlbox.lock.model import Target
from mlbox.lock.python.model import File, Pinned

OLD = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
NEW = Target(arch="arm64", python="3.13", python_full="3.13.5", glibc="2.41")
INDEX = 'registry = "https://user:secret@i.example/simple"'
A, B, COMMIT = "a" * 64, "b" * 64, "c" * 40


def read(kind: str, text: str, target: Target = OLD, **selection: Any) -> Imported:
    """Read `text` as a lock of this kind."""
    return reader_of(kind)(text.encode(), Selection(target=target, **selection))


def pin(imported: Imported, name: str) -> Pinned:
    return next(pin for pin in imported.pins if pin.name == name)


def versions(imported: Imported) -> dict[str, str]:
    return {pin.name: pin.version for pin in imported.pins}


# uv.lock

UV = f"""
version = 1
revision = 3
requires-python = ">=3.11"
resolution-markers = ["python_full_version < '3.12'", "python_full_version >= '3.12'"]

[[package]]
name = "app"
version = "1"
source = {{ virtual = "." }}
dependencies = [
    {{ name = "web", extra = ["fast"] }},
    {{ name = "lib", version = "1.9", source = {{ {INDEX} }}, marker = "python_full_version < '3.12'" }},
    {{ name = "lib", version = "2.1", source = {{ {INDEX} }}, marker = "python_full_version >= '3.12'" }},
]
[package.optional-dependencies]
gpu = [{{ name = "repo" }}]
[package.dev-dependencies]
dev = [{{ name = "direct" }}, {{ name = "vendored" }}]
[package.metadata]
requires-dist = [
    {{ name = "web", extras = ["fast"], specifier = ">=1" }},
    {{ name = "lib", marker = "python_full_version < '3.12'", specifier = "<2" }},
    {{ name = "repo", marker = "extra == 'gpu'", git = "https://g.example/repo" }},
]
provides-extras = ["gpu", "empty"]
[package.metadata.requires-dev]
dev = [
    {{ name = "direct", url = "https://d.example/direct-1.0-py3-none-any.whl" }},
    {{ name = "vendored", path = "libs/vendored-1.0-py3-none-any.whl" }},
]

[[package]]
name = "direct"
version = "1.0"
source = {{ url = "https://user:secret@d.example/direct-1.0-py3-none-any.whl" }}
wheels = [{{ url = "https://d.example/direct-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]

[[package]]
name = "lib"
version = "1.9"
source = {{ {INDEX} }}
[[package.wheels]]
url = "https://user:secret@i.example/lib-1.9-py3-none-any.whl"
hash = "sha256:{A}"
size = 5
upload-time = 2025-01-01T00:00:00Z

[[package]]
name = "lib"
version = "2.1"
source = {{ {INDEX} }}
sdist = {{ url = "https://i.example/lib-2.1.tar.gz", hash = "sha256:{B}", size = 6 }}

[[package]]
name = "repo"
version = "0.1"
source = {{ git = "https://user:secret@g.example/repo?subdirectory=python%2Fpkg&rev=main#{COMMIT}" }}
dependencies = [{{ name = "web" }}]

[[package]]
name = "speed"
version = "2.0"
source = {{ {INDEX} }}
wheels = [{{ url = "https://i.example/speed-2.0-py3-none-any.whl", hash = "sha256:{A}" }}]

[[package]]
name = "vendored"
version = "1.0"
source = {{ path = "libs/vendored-1.0-py3-none-any.whl" }}
wheels = [{{ filename = "vendored-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]

[[package]]
name = "web"
version = "1.0"
source = {{ registry = "links" }}
dependencies = [{{ name = "winonly", marker = "sys_platform == 'win32'" }}]
wheels = [{{ path = "web-1.0-py3-none-any.whl" }}]
[package.optional-dependencies]
fast = [{{ name = "speed" }}]

[[package]]
name = "winonly"
version = "1.0"
source = {{ registry = "https://i.example/simple" }}
wheels = [{{ url = "https://i.example/winonly-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
"""


def test_uv_takes_this_machines_part() -> None:
    """Markers choose among forks; extras of dependencies bring what they ask for; other machines' packages stay."""
    assert versions(read("uv", UV)) == {"web": "1.0", "lib": "1.9", "speed": "2.0"}
    assert versions(read("uv", UV, NEW)) == {"web": "1.0", "lib": "2.1", "speed": "2.0"}
    assert pin(read("uv", UV), "web").requires == ("speed",)


def test_uv_extras_groups_and_every_kind_of_source() -> None:
    """Where each package comes from, without a credential."""
    imported = read("uv", UV, extras=("gpu",), groups=("dev",))

    assert pin(imported, "lib").index == "https://i.example/simple"
    assert pin(imported, "lib").files == (
        File(filename="lib-1.9-py3-none-any.whl", url="https://i.example/lib-1.9-py3-none-any.whl", sha256=A, size=5),
    )
    assert pin(imported, "repo") == Pinned(
        name="repo",
        version="0.1",
        kind="vcs",
        index="git",
        url="https://g.example/repo",
        commit=COMMIT,
        subdirectory="python/pkg",
        requires=("web",),
    )
    assert pin(imported, "direct").kind == "archive"
    assert pin(imported, "direct").url == "https://d.example/direct-1.0-py3-none-any.whl"
    assert pin(imported, "vendored").url == "libs/vendored-1.0-py3-none-any.whl"
    assert pin(imported, "web").files[0].url == "links/web-1.0-py3-none-any.whl"
    assert b"secret" not in json.dumps([str(pin) for pin in imported.pins]).encode()


def test_uv_an_extra_without_dependencies() -> None:
    """It exists, and adds nothing."""
    assert read("uv", UV, extras=("empty",)) == read("uv", UV)


SPEC = """
[project]
name = "app"
version = "1"
dependencies = ["Web[fast] >= 1", "lib<2; python_version < '3.12'"]
[project.optional-dependencies]
gpu = ["repo"]
[dependency-groups]
dev = ["direct", {include-group = "more"}]
more = ["vendored"]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", "vendored (group more) is asked for"),
        (">= 1", ">= 2", "web[fast]>=2 is asked for; web[fast]>=1 is not asked for"),
        ("[fast]", "", "web>=1 is asked for"),
        ('"repo"', '"repo", "another"', "another (extra gpu) is asked for"),
        ('["repo"]', "[]", "repo (extra gpu) is not asked for"),
        ('"direct"', '"direct", "numpy>1"', "numpy>1 (group dev) is asked for"),
    ],
    ids=["group", "version", "extras", "extra", "less", "group again"],
)
def test_uv_a_lock_that_its_project_has_left_behind(old: str, new: str, message: str) -> None:
    """What changed is named, and the owner's command."""
    with pytest.raises(LockError, match=r"does not fit pyproject\.toml any more") as problem:
        read("uv", UV, spec=SPEC.replace(old, new).encode() if old else SPEC.encode())
    assert message in problem.value.message
    assert problem.value.hint == "run 'uv lock'"


def test_uv_a_lock_that_fits() -> None:
    """Sources of uv's own table, other spellings and markers in other words are no change."""
    spec = SPEC.replace('more = ["vendored"]', "").replace(', {include-group = "more"}', ', "vendored"')

    assert read("uv", UV, spec=spec.encode()) == read("uv", UV)
    assert read("uv", UV, spec=b'[project]\ndynamic = ["dependencies"]') == read("uv", UV)


@pytest.mark.parametrize("written_out", [False, True])
def test_uv_extras_of_the_project_itself(written_out: bool) -> None:
    """'app[gpu]' in an extra: some versions of uv write it as it is, others what it means."""
    gpu = """{ name = "repo", marker = "extra == 'all'", git = "https://g.example/repo" },"""
    itself = """{ name = "app", extras = ["gpu"], marker = "extra == 'all'" },"""
    lock = UV.replace("provides-extras", f"{gpu if written_out else itself}]\nprovides-extras", 1)
    lock = lock.replace("]\n{ name", "{ name", 1).replace(",\n]\n{", ",\n{", 1)
    spec = SPEC.replace('["repo"]', '["repo"]\nall = ["app[gpu]"]').replace(
        ', {include-group = "more"}', ', "vendored"'
    )
    spec = spec.replace('more = ["vendored"]', "")

    assert read("uv", lock, spec=spec.encode()).pins


def test_uv_the_old_way_of_saying_what_development_needs() -> None:
    """[tool.uv] dev-dependencies are the group dev."""
    spec = SPEC.partition("[dependency-groups]")[0] + '[tool.uv]\ndev-dependencies = ["direct", "vendored"]\n'

    assert read("uv", UV, spec=spec.encode()).pins


CONFLICTS = f"""
version = 1
requires-python = ">=3.11"
conflicts = [[{{ package = "app", extra = "cpu" }}, {{ package = "app", extra = "gpu" }}]]
[[package]]
name = "app"
version = "1"
source = {{ editable = "." }}
dependencies = [
    {{ name = "lib", version = "1.0", marker = "extra == 'extra-3-app-cpu'" }},
    {{ name = "lib", version = "2.0", marker = "extra == 'extra-3-app-gpu' or (extra != 'extra-3-app-cpu')" }},
]
[package.metadata]
provides-extras = ["cpu", "gpu"]
[[package]]
name = "lib"
version = "1.0"
source = {{ registry = "https://i.example" }}
wheels = [{{ url = "https://i.example/lib-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
[[package]]
name = "lib"
version = "2.0"
source = {{ registry = "https://i.example" }}
wheels = [{{ url = "https://i.example/lib-2.0-py3-none-any.whl", hash = "sha256:{A}" }}]
"""


@pytest.mark.parametrize(("extras", "version"), [((), "2.0"), (("cpu",), "1.0"), (("gpu",), "2.0")])
def test_uv_extras_that_exclude_one_another(extras: tuple[str, ...], version: str) -> None:
    """Each brings its own version."""
    assert versions(read("uv", CONFLICTS, extras=extras)) == {"lib": version}


def test_uv_both_at_once() -> None:
    """uv refuses it too."""
    with pytest.raises(LockError, match="extra cpu and extra gpu exclude one another"):
        read("uv", CONFLICTS, extras=("cpu", "gpu"))


WORKSPACE = f"""
version = 1
[manifest]
members = ["one", "two"]
[[package]]
name = "one"
source = {{ editable = "packages/one" }}
dependencies = [{{ name = "two" }}, {{ name = "lib" }}]
[[package]]
name = "two"
source = {{ editable = "packages/two" }}
[[package]]
name = "lib"
version = "1.0"
source = {{ registry = "https://i.example" }}
wheels = [{{ url = "https://i.example/lib-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
"""


def test_uv_members_of_a_workspace() -> None:
    """A member is its own project, and a folder for the others; a root that is none means all of them."""
    assert versions(read("uv", WORKSPACE, folder="packages/one")) == {"lib": "1.0", "two": ""}
    assert pin(read("uv", WORKSPACE, folder="packages/one"), "two").kind == "directory"
    assert versions(read("uv", WORKSPACE, folder="packages/two")) == {}
    assert versions(read("uv", WORKSPACE)) == {"lib": "1.0", "one": "", "two": ""}
    assert pin(read("uv", WORKSPACE), "one").requires == ("lib", "two")
    with pytest.raises(LockError, match="is not the lock of packages/three"):
        read("uv", WORKSPACE, folder="packages/three")


# poetry.lock

POETRY = f"""
[[package]]
name = "lib"
version = "1.9"
optional = false
python-versions = ">=3.8,<3.12"
groups = ["main", "dev"]
markers = "python_version < \\"3.12\\""
files = [{{file = "lib-1.9-py3-none-any.whl", hash = "sha256:{A}"}}]

[[package]]
name = "lib"
version = "2.1"
optional = false
python-versions = ">=3.12"
groups = ["main"]
markers = "python_version >= \\"3.12\\""
files = [{{file = "lib-2.1-py3-none-any.whl", hash = "sha256:{B}"}}]

[[package]]
name = "tool"
version = "1.0"
optional = true
python-versions = "*"
groups = ["main", "dev"]
files = []
[package.markers]
main = "extra == \\"data\\" and sys_platform == \\"linux\\""
dev = "sys_platform == \\"win32\\""
[package.dependencies]
lib = [
    {{version = ">=1", markers = "python_version < \\"3.12\\""}},
    {{version = ">=2", markers = "python_version >= \\"3.12\\""}},
]
plug = {{version = ">=1", optional = true, markers = "extra == \\"plugs\\""}}
Web = "*"
[package.extras]
plugs = ["plug (>=1)"]
[package.source]
type = "git"
url = "git@g.example:me/tool.git"
reference = "main"
resolved_reference = "{COMMIT}"
subdirectory = "py"

[[package]]
name = "web"
version = "1.0"
optional = false
python-versions = ">=3.8"
groups = ["main"]
files = [{{file = "web-1.0-py3-none-any.whl", hash = "sha256:{A}"}}]
[package.source]
type = "legacy"
url = "https://user:secret@i.example/simple"
reference = "here"

[[package]]
name = "plug"
version = "1.0"
optional = true
python-versions = "*"
groups = ["main"]
files = [{{file = "plug-1.0.tar.gz", hash = "sha256:{A}"}}]
markers = "extra == \\"data\\""
[package.source]
type = "url"
url = "https://d.example/plug-1.0.tar.gz"

[extras]
data = ["tool"]

[metadata]
lock-version = "2.1"
python-versions = "^3.8"
content-hash = ""
"""


def test_poetry_groups_markers_and_extras() -> None:
    """Each group has its own marker; extras stand in the markers."""
    assert versions(read("poetry", POETRY)) == {"lib": "1.9", "web": "1.0"}
    assert versions(read("poetry", POETRY, NEW)) == {"lib": "2.1", "web": "1.0"}
    assert versions(read("poetry", POETRY, groups=("dev",))) == {"lib": "1.9", "web": "1.0"}
    imported = read("poetry", POETRY, extras=("data",))
    assert versions(imported) == {"lib": "1.9", "web": "1.0", "tool": "1.0", "plug": "1.0"}
    assert pin(imported, "tool") == Pinned(
        name="tool",
        version="1.0",
        kind="vcs",
        index="git",
        url="ssh://git@g.example/me/tool.git",
        commit=COMMIT,
        subdirectory="py",
        requires=("lib", "web"),
    )
    assert pin(imported, "web").index == "https://i.example/simple"
    assert pin(imported, "lib").files == (File(filename="lib-1.9-py3-none-any.whl", url="", sha256=A),)
    assert (pin(imported, "plug").kind, pin(imported, "plug").url) == ("archive", "https://d.example/plug-1.0.tar.gz")


def test_poetry_an_edge_of_an_extra_that_is_asked_for() -> None:
    """'tool[plugs]' asks for plug, 'tool' does not."""
    imported = read("poetry", POETRY, extras=("data",), requirements=("tool[plugs]>=1",))

    assert pin(imported, "tool").requires == ("lib", "plug", "web")


OLD_POETRY = f"""
[[package]]
name = "lib"
version = "1.9"
category = "main"
optional = false
python-versions = ">=3.8"
[[package]]
name = "lib"
version = "2.1"
category = "main"
optional = false
python-versions = ">=3.12"
[[package]]
name = "web"
version = "1.0"
category = "main"
optional = false
python-versions = ">=2.7, !=3.0.*"
[package.dependencies]
lib = "^1.2"
plug = {{version = ">=1", optional = true}}
winonly = {{version = "*", markers = "sys_platform == \\"win32\\""}}
[package.extras]
fast = ["plug (>=1)"]
[[package]]
name = "plug"
version = "1.0"
category = "main"
optional = true
python-versions = "*"
[[package]]
name = "winonly"
version = "1.0"
category = "main"
optional = false
python-versions = "*"
[[package]]
name = "tester"
version = "1.0"
category = "dev"
optional = false
python-versions = "*"
[metadata]
lock-version = "1.1"
python-versions = "^3.8"
content-hash = ""
[metadata.files]
lib = [{{file = "lib-1.9-py3-none-any.whl", hash = "sha256:{A}"}}, {{file = "lib-1.9.tar.gz", hash = "sha256:{A}"}},
  {{file = "lib-2.1-py3-none-any.whl", hash = "sha256:{B}"}}]
web = [{{file = "web-1.0-py3-none-any.whl", hash = "sha256:{A}"}}]
plug = []
winonly = []
tester = []
"""


def test_poetry_before_2_1_is_walked_from_the_project() -> None:
    """The newest version that everyone admits, only what is asked for, files by their version."""
    imported = read("poetry", OLD_POETRY, NEW, requirements=("web>=1", "winonly; sys_platform == 'win32'"))
    assert versions(imported) == {"lib": "1.9", "web": "1.0"}
    assert [file.filename for file in pin(imported, "lib").files] == ["lib-1.9-py3-none-any.whl", "lib-1.9.tar.gz"]
    assert versions(read("poetry", OLD_POETRY, NEW, requirements=("lib",))) == {"lib": "2.1"}
    fast = read("poetry", OLD_POETRY, requirements=("web[fast]",))
    assert versions(fast) == {"lib": "1.9", "web": "1.0", "plug": "1.0"}
    assert pin(fast, "web").requires == ("lib", "plug")


def test_poetry_before_2_1_without_its_project() -> None:
    """It says so instead of taking everything."""
    with pytest.raises(LockError, match="does not say what the project asks for"):
        read("poetry", OLD_POETRY)


def test_poetry_before_1_0_has_hashes_only() -> None:
    """The index says which files they are."""
    lock = f'[[package]]\nname="a"\nversion="1"\n[metadata]\nlock-version="1.0"\n[metadata.hashes]\na=["{A}"]'

    assert pin(read("poetry", lock, requirements=("a",)), "a").hashes == (A,)


@pytest.mark.parametrize("written_by", ["2.3", "2.0", "1.8"])
def test_poetry_the_hash_of_its_project(written_by: str) -> None:
    """As Poetry's generations made it; another one is refused."""
    import hashlib

    old = {"dependencies": None, "dev-dependencies": None, "extras": {}, "source": None}
    whole: dict[str, Any] = {"project": {"dependencies": ["a"]}, "tool": {"poetry": {"extras": {}}}}
    if written_by == "2.3":
        whole["dependency-groups"] = {"dev": ["b"]}
    text = json.dumps(old if written_by == "1.8" else whole, sort_keys=True)
    lock = POETRY.replace('content-hash = ""', f'content-hash = "{hashlib.sha256(text.encode()).hexdigest()}"')
    toml = b'[project]\ndependencies = ["a"]\n[dependency-groups]\ndev = ["b"]\n[tool.poetry.extras]\n'

    assert read("poetry", lock, spec=toml) == read("poetry", POETRY)
    changed = toml.replace(b'"a"', b'"a", "c"') + b'gpu = ["a"]\n'
    with pytest.raises(LockError, match=r"does not fit pyproject\.toml any more") as problem:
        read("poetry", lock, spec=changed)
    assert problem.value.hint == "run 'poetry lock'"


@pytest.mark.parametrize(
    ("constraint", "yes", "no"),
    [
        ("^3.9", "3.13.5", "4.0"),
        ("^0.2.3", "0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0.9", "1.0"),
        ("~1.4.2", "1.4.9", "1.5"),
        ("~1", "1.9", "2.0"),
        ("~=1.4.2", "1.4.9", "1.5"),
        (">=3.8,<3.9.7 || >3.9.7", "3.11", "3.9.7"),
        (">=3.8 <3.12", "3.11", "3.12"),
        ("3.11.*", "3.11.2", "3.12"),
        ("=1.0", "1.0", "1.1"),
        ("*", "0.1", ""),
        ("something else", "1", ""),
    ],
)
def test_constraints_of_poetry(constraint: str, yes: str, no: str) -> None:
    """Carets and tildes; what is not understood admits everything."""
    assert admits(constraint, yes)
    assert not no or not admits(constraint, no)


def test_constraints_of_pep_440_are_the_same() -> None:
    """Nothing else is read into them."""
    for text in (">=1,<2", "!=1.5", "==1.*", "~=1.2", "", "<=1.9,>1"):
        for version in ("0.9", "1.0", "1.5", "1.9", "2.0"):
            assert admits(text, version) == (version in SpecifierSet(text)), (text, version)


# pdm.lock

PDM = f"""
[metadata]
groups = ["default", "data", "dev"]
strategy = ["inherit_metadata"]
lock_version = "4.5.0"
content_hash = ""
[[metadata.targets]]
requires_python = ">=3.11"
[[package]]
name = "web"
version = "1.0"
requires_python = ">=3.8"
groups = ["default"]
dependencies = ["winonly; sys_platform == \\"win32\\"", "core>=1"]
files = [{{file = "web-1.0-py3-none-any.whl", hash = "sha256:{A}"}}]
[[package]]
name = "web"
version = "1.0"
extras = ["fast"]
groups = ["default"]
dependencies = ["speed>=2", "web==1.0"]
files = [{{file = "web-1.0-py3-none-any.whl", hash = "sha256:{A}"}}]
[[package]]
name = "winonly"
version = "1.0"
groups = ["default"]
marker = "sys_platform == \\"win32\\""
[[package]]
name = "core"
version = "1.5"
groups = ["default"]
files = [{{url = "https://user:secret@i.example/core-1.5-py3-none-any.whl", hash = "sha256:{A}"}}]
[[package]]
name = "speed"
version = "2.0"
groups = ["default", "dev"]
git = "https://g.example/speed.git"
ref = "main"
revision = "{COMMIT}"
[[package]]
name = "frame"
version = "3.0"
groups = ["data"]
path = "./libs/frame-3.0-py3-none-any.whl"
[[package]]
name = "folder"
version = "3.0"
groups = ["dev"]
path = "./libs/folder"
"""


def test_pdm_groups_and_extras_are_one_thing() -> None:
    """Extras are groups; a package that is written once more for its extras is one package."""
    imported = read("pdm", PDM)
    assert versions(imported) == {"web": "1.0", "core": "1.5", "speed": "2.0"}
    assert pin(imported, "web").requires == ("core", "speed")
    assert pin(imported, "core").files[0].url == "https://i.example/core-1.5-py3-none-any.whl"
    assert (pin(imported, "speed").kind, pin(imported, "speed").commit) == ("vcs", COMMIT)
    more = read("pdm", PDM, extras=("data",), groups=("dev",))
    assert (pin(more, "frame").kind, pin(more, "frame").url) == ("archive", "libs/frame-3.0-py3-none-any.whl")
    assert (pin(more, "folder").kind, pin(more, "folder").url) == ("directory", "libs/folder")


def test_pdm_without_metadata_is_walked() -> None:
    """Only what is reached; extras bring their entries."""
    lock = PDM.replace('"inherit_metadata"', "")

    assert versions(read("pdm", lock, requirements=("web[fast]",))) == {"web": "1.0", "core": "1.5", "speed": "2.0"}
    plain = read("pdm", lock, requirements=("web",))
    assert versions(plain) == {"web": "1.0", "core": "1.5"}
    assert pin(plain, "web").requires == ("core",)


@pytest.mark.parametrize(
    ("target", "fits"),
    [
        ('requires_python = ">=3.12"', False),
        ('platform = "windows_amd64"', False),
        ('platform = "linux"', True),
        ('platform = "manylinux_2_17_x86_64"', True),
        ('platform = "manylinux_2_17_aarch64"', False),
        ('implementation = "pypy"', False),
    ],
)
def test_pdm_machines(target: str, fits: bool) -> None:
    """A lock for other machines only is refused."""
    lock = PDM.replace('requires_python = ">=3.11"', target)
    if fits:
        assert read("pdm", lock).pins
        return
    with pytest.raises(LockError, match="was made for other machines"):
        read("pdm", lock)


@pytest.mark.parametrize("old", [False, True], ids=["now", "old"])
def test_pdm_the_hash_of_its_project(old: bool) -> None:
    """As PDM's generations made it."""
    import hashlib

    content = {
        "sources": [],
        "dependencies": ["web[fast]"],
        "dev-dependencies": {} if old else {"my-dev": ["x"]},
        "optional-dependencies": {},
        "requires-python": ">=3.11",
        **({"overrides": {}} if old else {"resolution": {}}),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    lock = PDM.replace('content_hash = ""', f'content_hash = "sha256:{digest}"')
    spec = b'[project]\ndependencies = ["web[fast]"]\nrequires-python = ">=3.11"\n'
    spec += b"" if old else b'[dependency-groups]\nMy_Dev = ["x"]\n'

    assert read("pdm", lock, spec=spec) == read("pdm", PDM)
    with pytest.raises(LockError, match=r"does not fit pyproject\.toml any more"):
        read("pdm", lock, spec=spec.replace(b"[fast]", b""))


@pytest.mark.parametrize("kind", ["poetry", "pdm"])
def test_what_is_asked_for_by_its_place(kind: str) -> None:
    """A file of the project has no name in its requirements: the lock says which package it is."""
    lock = f"""[[package]]
name = "frame"
version = "3.0"
path = "./libs/frame-3.0-py3-none-any.whl"
files = [{{ file = "frame-3.0-py3-none-any.whl", hash = "sha256:{A}" }}]
source = {{ type = "file", url = "libs/frame-3.0-py3-none-any.whl" }}
[metadata]
lock-version = "2.0"
lock_version = "4.4"
"""
    line = "./libs/frame-3.0-py3-none-any.whl"
    assert versions(read(kind, lock, requirements=(line,))) == {"frame": "3.0"}
    assert versions(read(kind, lock, requirements=(f"{line}[x] ; sys_platform == 'win32'",))) == {}
    with pytest.raises(LockError, match="has no package of"):
        read(kind, lock, requirements=("./libs/other.whl",))


# Pipfile.lock

PIPFILE: dict[str, Any] = {
    "_meta": {
        "hash": {"sha256": ""},
        "pipfile-spec": 6,
        "requires": {"python_version": "3.11"},
        "sources": [{"name": "here", "url": "https://user:secret@i.example/simple", "verify_ssl": True}],
    },
    "default": {
        "Web": {"version": "==1.0", "hashes": [f"sha256:{A}", f"sha256:{B}", "md5:1"], "index": "here"},
        "winonly": {"version": "==1.0", "hashes": [f"sha256:{A}"], "markers": "sys_platform == 'win32'"},
        "older": {"version": "==1.0", "hashes": [f"sha256:{A}"], "sys_platform": "== 'win32'"},
        "repo": {"git": "https://user:secret@g.example/repo.git", "ref": COMMIT, "subdirectory": "py"},
        "app": {"path": ".", "editable": True},
    },
    "develop": {"tester": {"version": "==3.0", "hashes": [f"sha256:{A}"]}},
    "gpu": {"accel": {"file": "https://d.example/accel-1.0-py3-none-any.whl", "hashes": [f"sha256:{A}"]}},
}


def pipfile(**changes: Any) -> str:
    return json.dumps(PIPFILE | changes)


def test_pipfile_categories() -> None:
    """'dev' has its own name in the file; hashes are all that is known of files."""
    imported = read("pipenv", pipfile())
    assert versions(imported) == {"web": "1.0", "repo": "", "app": ""}
    assert pin(imported, "web") == Pinned(name="web", version="1.0", index="https://i.example/simple", hashes=(A, B))
    assert (pin(imported, "repo").url, pin(imported, "repo").subdirectory) == ("https://g.example/repo.git", "py")
    assert (pin(imported, "app").kind, pin(imported, "app").url) == ("directory", ".")
    more = read("pipenv", pipfile(), groups=("dev", "gpu"))
    assert {"tester", "accel"} <= set(versions(more))
    assert pin(more, "accel").files[0].sha256 == A


def test_pipfile_what_other_machines_want() -> None:
    """Pipenv locks it without a version: the Pipfile says that it is not for this one."""
    lock = pipfile(default={"winonly": {"version": "*"}})

    assert versions(read("pipenv", lock, requirements=("winonly; sys_platform == 'win32'",))) == {}
    with pytest.raises(LockError, match=r"winonly: '\*' is no exact version"):
        read("pipenv", lock, requirements=("winonly",))


def test_pipfile_the_hash_of_its_pipfile() -> None:
    """As Pipenv makes it, with names as written and normalised."""
    import hashlib

    spec = b'[packages]\nMy_Web = "*"\n[gpu]\naccel = "*"\n'
    for name in ("My_Web", "my-web"):
        content = {
            "_meta": {"requires": {}, "sources": PIPFILE["_meta"]["sources"]},
            "default": {name: "*"},
            "develop": {},
            "gpu": {"accel": "*"},
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        meta = PIPFILE["_meta"] | {"hash": {"sha256": hashlib.sha256(text.encode()).hexdigest()}}
        assert read("pipenv", pipfile(_meta=meta), spec=spec).pins
    with pytest.raises(LockError, match="does not fit the Pipfile any more") as problem:
        read("pipenv", pipfile(_meta=meta), spec=b'[packages]\nother = "*"\n')
    assert problem.value.hint == "run 'pipenv lock'"


# pylock.toml

PYLOCK = f"""
lock-version = "1.0"
created-by = "test"
requires-python = ">=3.11"
extras = ["gpu"]
dependency-groups = ["dev", "Docs"]
default-groups = ["dev"]
[[packages]]
name = "web"
version = "1.0"
index = "https://user:secret@i.example/simple"
dependencies = [{{ name = "speed" }}, {{ name = "winonly" }}]
[[packages.wheels]]
url = "https://i.example/web-1.0-py3-none-any.whl"
size = 5
hashes = {{ sha256 = "{A}" }}
[packages.sdist]
path = "sdists/web-1.0.tar.gz"
hashes = {{ sha256 = "{B}" }}
[[packages]]
name = "Speed.Up"
version = "1.0"
marker = "'gpu' in extras"
vcs = {{ type = "git", url = "https://g.example/speed", commit-id = "{COMMIT}", subdirectory = "py" }}
[[packages]]
name = "speed"
version = "2.0"
marker = "'dev' in dependency_groups"
archive = {{ url = "https://d.example/speed-2.0.tar.gz", hashes = {{ sha256 = "{A}" }}, subdirectory = "py" }}
[[packages]]
name = "winonly"
marker = "sys_platform == 'win32'"
directory = {{ path = "libs/winonly" }}
[[packages]]
name = "docs"
marker = "'Docs' in dependency_groups"
directory = {{ path = "libs/docs" }}
"""


def test_pylock_is_selected_as_the_standard_says() -> None:
    """Default groups count; every kind of source."""
    imported = read("pylock", PYLOCK)
    assert versions(imported) == {"web": "1.0", "speed": "2.0"}
    assert pin(imported, "web") == Pinned(
        name="web",
        version="1.0",
        index="https://i.example/simple",
        files=(
            File(
                filename="web-1.0-py3-none-any.whl", url="https://i.example/web-1.0-py3-none-any.whl", sha256=A, size=5
            ),
            File(filename="web-1.0.tar.gz", url="sdists/web-1.0.tar.gz", sha256=B),
        ),
        requires=("speed",),
    )
    assert (pin(imported, "speed").kind, pin(imported, "speed").subdirectory) == ("archive", "py")
    more = read("pylock", PYLOCK, extras=("gpu",), groups=("docs",))
    assert pin(more, "speed-up").commit == COMMIT
    assert pin(more, "docs").url == "libs/docs"


def test_pylock_who_asks_for_whom_in_pdms_words() -> None:
    """PDM keeps it in its own table."""
    lock = PYLOCK.replace('dependencies = [{ name = "speed" }, { name = "winonly" }]', "")
    lock = lock.replace(
        '[[packages]]\nname = "Speed.Up"',
        '[packages.tool.pdm]\ndependencies = ["speed>=1"]\n[[packages]]\nname = "Speed.Up"',
    )

    assert pin(read("pylock", lock), "web").requires == ("speed",)


@pytest.mark.parametrize("kind", ["uv", "poetry", "pdm", "pylock"])
def test_the_order_of_packages_means_nothing(kind: str) -> None:
    """A lock that is merged by hand says the same."""
    text = {"uv": UV, "poetry": POETRY, "pdm": PDM, "pylock": PYLOCK}[kind]
    mark = "[[packages]]" if kind == "pylock" else "[[package]]"
    head, *packages = text.split(mark)
    last, end, tail = packages[-1].partition("\n[extras]")
    turned = mark.join([head, *([last, *reversed(packages[:-1])] if packages else [])]) + end + tail

    assert read(kind, turned) == read(kind, text)


@pytest.mark.parametrize(
    ("marker", "extras", "holds"),
    [
        ("extra == 'a'", {"a", "b"}, True),
        ("extra == 'a' and extra == 'b'", {"a", "b"}, True),
        ("extra != 'a'", {"a", "b"}, False),
        ("'a' == extra or extra == \"c\"", {"a"}, True),
        ("extra == 'A_b'", {"a-b"}, True),
        ("sys_platform == 'linux' and extra == 'a'", set(), False),
    ],
)
def test_extras_in_markers_are_a_set(marker: str, extras: set[str], holds: bool) -> None:
    """As all lockers mean it."""
    assert Markers(OLD).hold(marker, extras) is holds


def test_reading_needs_nothing_but_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no file."""
    import socket

    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("a reader asked for something")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(Path, "open", refused)
    for kind, text in (("uv", UV), ("poetry", POETRY), ("pdm", PDM), ("pipenv", pipfile()), ("pylock", PYLOCK)):
        assert read(kind, text).pins
