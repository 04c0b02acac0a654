"""Every kind of file that a repository may have, damaged and hostile in the same ways: one clear error each, or less.

What each format refuses and takes in particular stands in the tests of its reader.
"""

import json
import re
from pathlib import Path

import pytest

from mlbox.errors import MlboxError
from mlbox.lock.foreign.importing import read_foreign
from mlbox.lock.model import Target
from mlbox.project.discover import load_project
from mlbox.project.drawing import draw

TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
A = "a" * 64
URL = "https://me:secret@files.example.org/x-1.0-py3-none-any.whl"
PYPROJECT = '[project]\nname = "app"\nversion = "1"\ndependencies = ["x"]\n'
POETRY = '[tool.poetry]\nname = "app"\nversion = "1"\n[tool.poetry.dependencies]\npython = "^3.11"\nx = "^1.0"\n'
CONDA = "https://conda.example.org/main/linux-64/x-1.0-h1_0.conda"
FILES = f'files = [{{ file = "x-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]\n'

GOOD = {
    "pyproject.toml": f'{PYPROJECT}optional-dependencies.more = ["y>=1"]\n[tool.uv]\nsources.x = {{ url = "{URL}" }}\n',
    "mlbox.toml": 'requirements = []\npython = "3.11"\nsystem-packages = ["git"]\nenv = { A = "b" }\n',
    "requirements.txt": f"x>=1; python_version > '3' # why\ny[a,b]==1 --hash=sha256:{A}\nz @ {URL}\n-c other.txt\n",
    "Pipfile": '[packages]\nx = { version = ">=1", extras = ["a"] }\n[requires]\npython_version = "3.11"\n',
    "pixi.toml": '[project]\nname = "x"\nchannels = ["main"]\nplatforms = ["linux-64"]\n[dependencies]\nx = ">=1"\n',
    "environment.yml": "channels:\n  - main\ndependencies:\n  - x>=1\n  - pip:\n    - y==1\nvariables: {A: b}\n",
    "setup.cfg": "[metadata]\nname = x\n[options]\ninstall_requires =\n  x>=1\n[options.extras_require]\na = y\n",
    "setup.py": "from setuptools import setup\nsetup(name='x', install_requires=['x>=1'], extras_require={'a': 'y'})\n",
    "train.py": '# /// script\n# requires-python = ">=3.10"\n# dependencies = ["x>=1"]\n# ///\nimport y.z\n',
    "look.ipynb": json.dumps({"cells": [{"cell_type": "code", "source": ["import x\n", "!pip install y\n"]}]}),
    "apt.txt": "git\nlibgl1 # for cv2\n",
    "runtime.txt": "python-3.11\n",
    ".python-version": "3.11\n",
    ".tool-versions": "python 3.11.4\nnodejs 20\n",
    "Dockerfile": 'FROM python:3.11\nENV A="b c"\nRUN apt-get install -y git && pip install x==1\nCMD ["x.py"]\n',
    "cog.yaml": 'build:\n  gpu: true\n  python_version: "3.11"\n  python_packages:\n    - x==1\n  run:\n    - make\n',
    "uv.lock": 'version = 1\n[[package]]\nname = "app"\nsource = { virtual = "." }\ndependencies = [{ name = "x" }]\n'
    '[package.metadata]\nrequires-dist = [{ name = "x" }]\n'
    f'[[package]]\nname = "x"\nversion = "1.0"\nsource = {{ url = "{URL}" }}\n'
    f'wheels = [{{ url = "{URL}", hash = "sha256:{A}" }}]\n',
    "poetry.lock": '[metadata]\nlock-version = "2.1"\npython-versions = "*"\ncontent-hash = ""\n'
    f'[[package]]\nname = "x"\nversion = "1.0"\ngroups = ["main"]\n{FILES}',
    "pdm.lock": '[metadata]\nlock_version = "4.5.0"\nstrategy = ["inherit_metadata"]\n'
    f'[[package]]\nname = "x"\nversion = "1.0"\ngroups = ["default"]\n{FILES}',
    "pylock.toml": 'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "x"\nversion = "1.0"\n'
    f'[[packages.wheels]]\nurl = "{URL}"\nhashes = {{ sha256 = "{A}" }}\n',
    "Pipfile.lock": json.dumps(
        {"_meta": {"pipfile-spec": 6}, "default": {"x": {"version": "==1.0", "hashes": [f"sha256:{A}"]}}}
    ),
    "conda-lock.yml": "version: 1\nmetadata: {platforms: [linux-64]}\npackage:\n- name: x\n  version: '1.0'\n"
    f"  manager: conda\n  platform: linux-64\n  url: {CONDA}\n  hash: {{sha256: '{A}'}}\n",
    "pixi.lock": "version: 6\nenvironments:\n  default:\n    channels: []\n    packages:\n      linux-64:\n"
    f"      - conda: {CONDA}\npackages:\n- conda: {CONDA}\n  sha256: {A}\n  size: 5\n  depends: [y >=1]\n",
    "spec-file.txt": f"@EXPLICIT\n{CONDA}#{'c' * 32}\n# pip y @ {URL}#sha256={A}\n",
}
"""A small good one of each format."""

LOCKS = {"uv.lock": PYPROJECT, "poetry.lock": POETRY, "pdm.lock": PYPROJECT}
"""Those that stand beside a pyproject.toml."""
ASIDE = {".python-version", ".tool-versions", "runtime.txt", "apt.txt", "mlbox.toml", "pyproject.toml"}
"""What counts without being named."""
DRAWN = {"Dockerfile", "cog.yaml", "look.ipynb"}
YAML = [file for file in GOOD if file.endswith((".yml", ".yaml")) or file == "pixi.lock"]
TOML = [file for file in GOOD if file.endswith(".toml") or file in (*LOCKS, "Pipfile")]
JSON = ["Pipfile.lock", "look.ipynb"]

every_format = pytest.mark.parametrize("file", GOOD)


def read(folder: Path, file: str, data: bytes | str) -> str:
    """Read the file as `mlbox lock` and `mlbox init` do; return what is said against it, '' when nothing is."""
    (folder / "pyproject.toml").write_text(LOCKS.get(file, PYPROJECT))
    (folder / "other.txt").touch()
    (folder / file).write_bytes(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
    said = []
    try:
        if file in DRAWN:
            said += draw(folder).left
        else:
            project = load_project(folder, requirements=() if file in ASIDE else (file,))
            if project.foreign:
                read_foreign(project, project.foreign, TARGET)
    except MlboxError as problem:
        said += [problem.message, problem.hint or ""]
    text = "\n".join(said)
    assert "secret" not in text
    assert len(text) < 6000, len(text)
    assert re.fullmatch(r"[^\x00-\x08\x0b-\x1f\x7f]*", text), text
    return text


@every_format
def test_the_good_one(tmp_path: Path, file: str) -> None:
    """What the bad ones are made from is read."""
    said = read(tmp_path, file, GOOD[file])
    assert file in DRAWN or not said, said


@every_format
def test_cut_anywhere(tmp_path: Path, file: str) -> None:
    """A part says less or nothing; there is no other exception."""
    text = GOOD[file]
    for end in range(0, len(text), 1 + len(text) // 25):
        read(tmp_path, file, text[:end])


DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "NUL": b"\0" * 100,
    "no UTF-8": b"\xff\xfe\xfa\x80 x",
    "UTF-16": "x = 1\n".encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf",
    "a list": b"[1, 2]",
    "text": b'"text"',
    "a number": b"1",
    "null": b"null",
    "brackets": b"[" * 200_000,
    "braces": b'{"a":' * 100_000,
    "parentheses": b"(" * 200_000,
    "signs": b"-" * 100_000,
    "points": b"a" + b".b" * 100_000 + b" = 1",
    "indentation": b"".join(b" " * depth + b"a:\n" for depth in range(1500)),
    "a large number": b"a = 1" + b"0" * 10_000,
    "a large number of JSON": b'{"a": 1' + b"0" * 10_000 + b"}",
    "half a surrogate": b'{"a": "\\ud800", "cells": "\\ud800"}',
    "keys twice": b"a: 1\na: 2\n",
    "control characters": b"\x1b]0;x\x07\x1b[2J\n",
    "long lines": b"x" * 500_000,
    "many lines": b"x\n" * 30_000,
}


@every_format
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(tmp_path: Path, file: str, damage: str) -> None:
    """Nothing but an error of mlbox's comes out, and it is one that a terminal can show."""
    read(tmp_path, file, DAMAGES[damage])


@every_format
def test_huge(tmp_path: Path, file: str) -> None:
    """50 MB are refused before they are parsed."""
    said = read(tmp_path, file, b"#" * (50 << 20))
    assert re.search(r"larger than \d+ (?:MiB|KiB)|more than \d+ MiB", said) or (file in ASIDE and "larger" in said), (
        said[:300]
    )


@every_format
def test_every_value_of_another_kind(tmp_path: Path, file: str) -> None:
    """Each text, list and table becomes a number, a list, a table, a truth, nothing."""
    text = GOOD[file]
    values = [*re.finditer(r'"[^"\n]*"|\[[^\[\]\n]*\]|\{[^{}\n]*\}|(?<=: )[^\n"\[{]+', text)]
    for found in values:
        for other in ("5", "[]", "[[5]]", "{}", "{ a = 5 }", '{"a": 5}', "true", '""', "1979-05-27"):
            read(tmp_path, file, text[: found.start()] + other + text[found.end() :])


@pytest.mark.parametrize("file", YAML)
@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b, *b, *b]\n",
        "a: &a [*a]\n",
        "a: &a {<<: *a}\n",
        "a: !!python/object/apply:os.system [echo]\n",
        "a: !!binary aGVsbG8=\n",
        "%TAG ! tag:example.org,2000:\n---\na: !x 1\n",
        "--- 1\n--- 2\n",
        "? [a, b]\n: c\n",
    ],
    ids=["bomb", "circle", "merge", "object", "binary", "tag", "documents", "key"],
)
def test_what_yaml_may_be(tmp_path: Path, file: str, bomb: str) -> None:
    """Aliases, tags, several documents and keys that are no text are refused, alone and in a good file."""
    assert read(tmp_path, file, bomb)
    assert read(tmp_path, file, GOOD[file] + bomb.replace("a:", "zz:"))


PLACES = (
    "../x",
    "/etc/passwd",
    "file:///etc/passwd",
    "~/x",
    "..\\\\x",
    "x/../../y",
    "https://me:secret@h/../x",
    "-e",
    "--pre",
)


@every_format
@pytest.mark.parametrize("place", PLACES)
def test_names_that_are_paths_or_options(tmp_path: Path, file: str, place: str) -> None:
    """In the place of a package: refused or no package; nothing outside the folder becomes a requirement."""
    text = re.sub(r"(?<![\w./-])[xy](?=[\"'\s>=\[;]|$)", lambda found: place, GOOD[file], flags=re.MULTILINE)
    read(tmp_path, file, text)
    if file not in DRAWN:
        try:
            project = load_project(tmp_path, requirements=() if file in ASIDE else (file,))
        except MlboxError:
            return
        texts = [one.text for one in project.requirements]
        here = [text for text in texts if "://" not in text or text.startswith("file:")]
        assert not any(text.startswith(("/", "-", "~", "file:")) or ".." in text.split("/") for text in here), here
