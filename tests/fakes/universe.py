"""A small world of packages with everything that locks have words for, and projects that ask for some of it."""

import json
from pathlib import Path

from fakes.index import FakeIndex, make_sdist, make_wheel

PACKAGES = ("core", "web", "speed", "lib", "winonly", "accel", "tester", "helper")

LINES = ("web[fast]>=1", "winonly; sys_platform == 'win32'")
FORKED = ("lib<2; python_version < '3.12'", "lib>=2; python_version >= '3.12'")
"""One name in two versions, which only some tools can lock."""
EXTRAS = {"gpu": ("accel",)}
GROUPS = {"dev": ("tester",)}

EDGES = {
    "accel": ("core",),
    "core": (),
    "helper": (),
    "lib": ("core",),
    "speed": ("core",),
    "tester": ("core", "helper"),
    "web": ("core", "speed"),
}
"""Who asks for whom on Linux, with web's extra."""

_TAGS = (
    *(f"cp3{minor}-cp3{minor}-manylinux_2_17_{machine}" for minor in (11, 13) for machine in ("x86_64", "aarch64")),
    *("cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-win_amd64", "cp313-cp313-macosx_11_0_arm64"),
)


def fill(index: FakeIndex) -> None:
    """Put the world's packages into `index`."""

    def wheel(name: str, version: str, *requires: str, more: str = "", tag: str = "py3-none-any") -> None:
        index.add(make_wheel(name, version, requires=requires, extra_metadata=more, tag=tag))

    for version in ("1.0", "1.5"):
        wheel("core", version)
        index.add(make_sdist("core", version))
    wheel(
        *("web", "1.0", "core>=1", "speed; extra == 'fast'", "winonly; sys_platform == 'win32'"),
        more="Provides-Extra: fast\n",
    )
    for tag in _TAGS:
        wheel("speed", "2.0", "core", tag=tag)
    wheel("lib", "1.9", "core", more="Requires-Python: <3.12\n")
    wheel("lib", "2.1", "core", more="Requires-Python: >=3.12\n")
    wheel("winonly", "1.0")
    wheel("accel", "1.0", "core")
    wheel("tester", "3.0", "core>=1.2", "helper")
    wheel("helper", "0.1")


def pyproject(lines: tuple[str, ...], *, tool: str = "", python: str = ">=3.11") -> str:
    """Return a pyproject.toml of standard tables, and `tool`'s own."""
    extras = "".join(f"{extra} = {json.dumps(more)}\n" for extra, more in EXTRAS.items())
    groups = "".join(f"{group} = {json.dumps(more)}\n" for group, more in GROUPS.items())
    return (
        f'[project]\nname = "app"\nversion = "1"\nrequires-python = "{python}"\ndependencies = {json.dumps(lines)}\n'
        f"[project.optional-dependencies]\n{extras}[dependency-groups]\n{groups}{tool}"
    )


def poetry_pyproject(url: str) -> str:
    """Return a pyproject.toml with Poetry's own tables, as both of its generations read it."""
    return f"""
[tool.poetry]
name = "app"
version = "1"
description = ""
authors = []
package-mode = false
[tool.poetry.dependencies]
python = "^3.11"
web = {{ version = "^1.0", extras = ["fast"] }}
lib = [{{ version = "<2", python = "<3.12" }}, {{ version = ">=2", python = ">=3.12" }}]
winonly = {{ version = "*", platform = "win32" }}
accel = {{ version = "*", optional = true }}
[tool.poetry.extras]
gpu = ["accel"]
[tool.poetry.group.dev.dependencies]
tester = "*"
[[tool.poetry.source]]
name = "here"
url = "{url}/"
priority = "primary"
"""


def pipfile(url: str) -> str:
    """Return a Pipfile with a category of its own."""
    return f"""
[[source]]
name = "here"
url = "{url}"
verify_ssl = false
[packages]
Web = {{ version = "*", extras = ["fast"] }}
[dev-packages]
tester = "*"
[gpu]
accel = "*"
[requires]
python_version = "3.11"
"""


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file of a project and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder
