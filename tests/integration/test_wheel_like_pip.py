"""Unpacked wheels compared, file by file, with what pip makes of them in a virtual environment.

Three differences are wanted: INSTALLER names mlbox (it is what installed, and what must uninstall), pip's
environment lies elsewhere (its path is replaced before the comparison), and mlbox leaves out byte code.
"""

import csv
import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.wheels import WHEEL, make_wheel, piece_of

from mlbox.build.env import fill_env
from mlbox.build.record import Row, row_for, write_record
from mlbox.build.wheel import unpack_wheel
from mlbox.plan.model import PREFIX, EnvPiece

pytestmark = pytest.mark.integration

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
File = tuple[str, int, bytes]

POINTS = b"""\
# comments and blank lines are allowed

[console_scripts]
full = full.cli:main
nested=full.cli:App.run
extra = full.cli:main [color]
dash-ed_name.x = full.cli:main
pip = full.cli:main
pip3.9 = full.cli:main

[gui_scripts]
window = full.gui:start

[full.plugins]
one = full.plugins
"""
FULL = {
    "full/__init__.py": b"",
    "full/cli.py": b"def main(): pass\n",
    "full/na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac.txt".encode("latin-1").decode(): b"text",
    "full/comma,quote.txt": b"x",
    "full/lib.so": b"\x7fELF",
    "full/empty/__init__.py": b"",
    "full.pth": b"import os\n",
    "space/one/mod.py": b"x = 1\n",  # a namespace package: no __init__.py
    "full-1.0.data/scripts/tool": b"#!python\nprint('tool')\n",
    "full-1.0.data/scripts/flags": b"#!python -u\r\nprint('flags')\n",
    "full-1.0.data/scripts/plain.sh": b"#!/bin/sh\n",
    "full-1.0.data/scripts/binary": bytes(range(256)),
    "full-1.0.data/headers/full.h": b"#define FULL\n",
    "full-1.0.data/headers/sub/more.h": b"",
    "full-1.0.data/data/share/full/data.txt": b"data",
    "full-1.0.data/data/etc/full.conf": b"a=b",
    "full-1.0.data/purelib/pure.py": b"pure = 1\n",
    "full-1.0.data/platlib/plat/__init__.py": b"plat = 1\n",
    "full-1.0.dist-info/entry_points.txt": POINTS,
    "full-1.0.dist-info/licenses/LICENSE": b"free",
    "full-1.0.dist-info/top_level.txt": b"full\n",
}
RUNNABLE = [
    "full/lib.so",
    "full-1.0.data/scripts/tool",
    "full-1.0.data/scripts/plain.sh",
    "full-1.0.data/data/etc/full.conf",
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("wheels")
    native = {"native_part/_c.py": b"", "Native_Part-2.0+cpu.dist-info/WHEEL": WHEEL.replace(b"true", b"false")}
    return [
        make_wheel(folder, FULL, name="full", executable=RUNNABLE),
        make_wheel(folder, {"space/two/mod.py": b"x = 2\n"}, name="other.dots"),
        make_wheel(
            folder,
            {**native, "Native_Part-2.0+cpu.data/headers/n.h": b""},
            name="Native_Part",
            version="2.0+cpu",
        ),
    ]


@pytest.fixture(scope="module")
def made_by_pip(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, File]:
    folder = tmp_path_factory.mktemp("pip") / "env"
    before = os.umask(0o022)
    try:
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        pip = [sys.executable, "-m", "pip", "--isolated", "--python", str(folder / "bin/python"), "install"]
        run([*pip, "--quiet", "--no-index", "--no-deps", "--no-compile", *map(str, wheels)])
    finally:
        os.umask(before)
    return moved(files_of(folder), str(folder))


def run(argv: list[str]) -> None:
    # Where tests are run, byte code and pip's settings may be configured otherwise; pip must not see it.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    subprocess.run(argv, check=True, env=env)


def files_of(folder: Path) -> dict[str, File]:
    """Return kind, mode and content of everything below `folder`."""
    found: dict[str, File] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        name, mode = str(path.relative_to(folder)), stat.S_IMODE(status.st_mode)
        if path.is_symlink():
            found[name] = ("link", 0o777, str(path.readlink()).encode())
        elif path.is_dir():
            found[name] = ("folder", mode, b"")
        else:
            found[name] = ("file", mode, path.read_bytes())
    return found


def moved(files: dict[str, File], prefix: str) -> dict[str, File]:
    """Return `files` as they would be had pip installed to mlbox's prefix, under mlbox's name."""
    out = dict(files)
    for name, (kind, mode, data) in files.items():
        # From a local file pip records where it was; the piece of a locked wheel has that of its index.
        if name.endswith(".dist-info/direct_url.json"):
            del out[name]
        elif name.endswith(".dist-info/INSTALLER"):
            out[name] = (kind, mode, b"mlbox\n")
        elif kind == "file":
            out[name] = (kind, mode, data.replace(prefix.encode(), f"/{PREFIX}".encode()))
    for name, (kind, mode, data) in out.items():
        if name.endswith(".dist-info/RECORD"):
            out[name] = (kind, mode, rehashed(data, out))
    return out


def rehashed(record: bytes, files: dict[str, File]) -> bytes:
    rows = []
    for path, digest, size in csv.reader(io.StringIO(record.decode(), newline="")):
        at = os.path.normpath(f"lib/python{PYTHON}/site-packages/{path}")
        if path.endswith("direct_url.json"):
            continue
        rows.append(row_for(path, files[at][2]) if digest else Row(path, digest, size))
    return write_record(rows)


def made_by_mlbox(wheels: list[Path], folder: Path) -> dict[str, File]:
    found: dict[str, File] = {}
    for wheel in wheels:
        unpack_wheel(wheel, folder / wheel.name, piece_of(wheel, requested=True, python=PYTHON))
        found |= files_of(folder / wheel.name / PREFIX)
    return found


def test_every_file_is_as_pip_makes_it(wheels: list[Path], made_by_pip: dict[str, File], tmp_path: Path) -> None:
    ours = made_by_mlbox(wheels, tmp_path)
    of_venv = {"lib64", "pyvenv.cfg", f"include/python{PYTHON}"}
    theirs = {
        name: file
        for name, file in made_by_pip.items()
        if name not in of_venv and not name.startswith(("bin/python", "bin/activate", "bin/Activate"))
    }
    assert sorted(ours) == sorted(theirs)
    assert {name: file for name, file in ours.items() if file != theirs[name]} == {}


def test_the_environment_is_as_venv_makes_it(made_by_pip: dict[str, File], tmp_path: Path) -> None:
    fill_env(tmp_path / "env", EnvPiece(python=PYTHON, python_full=f"{PYTHON}.0"))
    ours = files_of(tmp_path / "env" / PREFIX)
    links = {"bin/python3", "bin/python", f"bin/python{PYTHON}", "lib64"}
    assert {name for name in made_by_pip if made_by_pip[name][0] == "link"} >= links
    assert {name for name in ours if ours[name][0] == "link"} == links
    settings = {line.partition(b" = ")[0] for line in ours["pyvenv.cfg"][2].splitlines()}
    assert settings <= {line.partition(b" = ")[0] for line in made_by_pip["pyvenv.cfg"][2].splitlines()}
    assert all(name in made_by_pip for name, file in ours.items() if file[0] == "folder")
