"""environment.yml: what conda would read in it, where it stands, and what is refused."""

from pathlib import Path

import pytest

from mlbox.errors import ProjectError
from mlbox.project.environment import match_spec, read_environment
from mlbox.project.model import CondaDependency, CondaSpec
from mlbox.project.problems import Problems
from mlbox.project.yaml import MAX_SIZE, parse_yaml

EXPORTED = b"""\
name: seg
channels:
  - pytorch
  - conda-forge
  - https://conda.example.org/internal
  - nodefaults
dependencies:
  - python=3.10
  - pytorch::pytorch >=2.1, <2.3
  - numpy=1.26.4=py310hb13e2d6_0
  - blas[build=*mkl]   # the fast one
  - pip
  - pip:
      - -r requirements.txt
      - timm==0.9.2
      - git+https://git.example.org/x/y.git@main
variables:
  OMP_NUM_THREADS: 4
  EMPTY:
platforms: [linux-64, linux-aarch64]
prefix: /home/me/miniconda3/envs/seg
"""


def read(data: bytes) -> tuple[CondaSpec, list[tuple[str, str]], tuple[str, ...]]:
    """Return spec, pip lines and notes; raise what is wrong."""
    problems = Problems()
    environment = read_environment(data, "environment.yml", problems)
    problems.check()
    return environment.spec, [tuple(line) for line in environment.pip], environment.notes


def test_an_exported_environment() -> None:
    """Everything with its line; values stay the text that was written."""
    spec, pip, notes = read(EXPORTED)

    def at(text: str, line: int) -> CondaDependency:
        return CondaDependency(text=text, origin=f"environment.yml:{line}")

    assert spec == CondaSpec(
        path="environment.yml",
        name="seg",
        channels=("pytorch", "conda-forge", "https://conda.example.org/internal", "nodefaults"),
        dependencies=(
            at("python=3.10", 8),
            at("pytorch::pytorch >=2.1, <2.3", 9),
            at("numpy=1.26.4=py310hb13e2d6_0", 10),
            at("blas[build=*mkl]", 11),
            at("pip", 12),
        ),
        variables={"OMP_NUM_THREADS": "4", "EMPTY": ""},
        platforms=("linux-64", "linux-aarch64"),
    )
    assert pip == [
        ("-r requirements.txt", "environment.yml:14"),
        ("timm==0.9.2", "environment.yml:15"),
        ("git+https://git.example.org/x/y.git@main", "environment.yml:16"),
    ]
    assert notes == ("environment.yml:21: 'prefix' has no effect: a place on one machine",)


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"name:\nchannels:\ndependencies:\n", b"\xef\xbb\xbfname: ~\n"])
def test_empty(data: bytes) -> None:
    """Nothing is asked for, which is not wrong."""
    assert read(data) == (CondaSpec(path="environment.yml"), [], ())


@pytest.mark.parametrize(
    "text",
    [
        "numpy",
        "_libgcc_mutex=0.1=main",
        "numpy 1.26.*",
        "numpy>=1.26,<2|>2.1",
        "conda-forge/label/rc::python=3.13",
        "https://conda.example.org/x/linux-64::thing",
        "pytorch=*=*cuda*",
        "numpy[version='>=1.26',build=py310*]",
        "ca-certificates ~=2024.1",
    ],
)
def test_match_specs(text: str) -> None:
    """The spellings conda has."""
    assert match_spec(text) == text


BAD = {
    "truncated": (b"dependencies:\n  - 'num", "environment.yml: is not YAML: line 2"),
    "a list": (b"- numpy\n", "environment.yml: must be a map"),
    "a word": (b"numpy", "environment.yml: must be a map"),
    "no list of dependencies": (b"dependencies: numpy", "environment.yml:1: must be a list"),
    "a map of dependencies": (b"dependencies: {numpy: 1}", "environment.yml:1: must be a list"),
    "a list in the list": (b"dependencies:\n- [numpy]", "environment.yml:2: must be one word"),
    "a section nobody knows": (b"dependencies:\n- conda: [x]", "environment.yml:2: 'conda' is no section"),
    "pip is a word": (b"dependencies:\n- pip: x", "environment.yml:2: must be a list"),
    "channels": (b"channels: x", "environment.yml:1: must be a list"),
    "a channel that climbs": (b"channels: [../../etc]", "environment.yml:1: '../../etc' is no channel"),
    "a channel that climbs later": (b"channels: [a/../../b]", "is no channel"),
    "a channel with a password": (b"channels: ['ftp://me:hunter2@h/x']", "'ftp://h/x' is no channel"),
    "a path as a package": (b"dependencies: [../evil]", "environment.yml:1: '../evil' is no conda package"),
    "an absolute path": (b"dependencies: [/etc/passwd]", "'/etc/passwd' is no conda package"),
    "an option as a package": (b"dependencies: [--file=x]", "'--file=x' is no conda package"),
    "a shell word": (b"dependencies: ['numpy=1; rm -rf $(x)`y`']", "is no conda package"),
    "a bad channel of a package": (b"dependencies: ['../x::numpy']", "before '::' is no channel"),
    "variables": (b"variables: [a]", "environment.yml:1: must be a map"),
    "a variable's name": (b"variables: {'A=B': x}", "'A=B' is no name"),
    "a variable's value": (b"variables: {A: [x]}", "must be one value"),
    "a name of many lines": (b'name: "a\\nb"', "environment.yml:1: must be one word"),
    "a bomb": (b"a: &a [x]\nb: &b [*a, *a]\n", "environment.yml: line 1: anchors and aliases are not read"),
    "a merge": (b"a: 1\n<<: *a\n", "line 2: anchors and aliases"),
    "a tag": (b"name: !!python/object/apply:os.system [x]", "line 1: the tag tag:yaml.org,2002:python/object"),
    "a tag of its own": (b"dependencies:\n- !secret x", "line 2: the tag !secret"),
    "a directive": (b"%TAG ! tag:x,2000:\n---\na: 1", "directives are not read"),
    "deep": (b"[" * 100_000, "nested more than 20 deep"),
    "deep blocks": (b"".join(b" " * n + b"a:\n" for n in range(100)), "nested more than 20 deep"),
    "two documents": (b"name: a\n---\nname: b\n", "line 2: a second document"),
    "a key twice": (b"name: a\nname: b\n", "line 2: 'name' stands here a second time"),
    "a key that is a list": (b"? [a]\n: b\n", "a key must be a word"),
    "large": (b"#" * (MAX_SIZE + 1), "is larger than 1024 KiB"),
    "Latin 1": ("name: Mäx".encode("latin-1"), "is not UTF-8"),
    "UTF-16": ("name: x".encode("utf-16"), "is not UTF-8"),
    "NUL": (b"name: \0", "is not YAML"),
    "an impossible letter": (b'name: "\\UFFFFFFFF"', "is not YAML"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_refused(data: bytes, message: str) -> None:
    """With file and line; nothing is expanded or constructed, and no secret is shown."""
    with pytest.raises(ProjectError) as refused:
        read(data)
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_all_problems_come_together() -> None:
    """One run tells all."""
    with pytest.raises(ProjectError, match="3 problems"):
        read(b"channels: x\ndependencies: [../a, numpy, /b]\n")


def test_words_stay_text() -> None:
    """No number, truth or date is made of them."""
    document = parse_yaml(b"[3.10, on, 0x1f, 2024-01-01, 1_000, 'null', null]")
    assert isinstance(document.value, tuple)
    assert [node.value for node in document.value] == ["3.10", "on", "0x1f", "2024-01-01", "1_000", "null", None]


def test_nothing_is_written(tmp_path: Path) -> None:
    """A tag that would run a program does not."""
    with pytest.raises(ProjectError):
        read(f"name: !!python/object/apply:os.mkdir ['{tmp_path}/made']".encode())
    assert list(tmp_path.iterdir()) == []
