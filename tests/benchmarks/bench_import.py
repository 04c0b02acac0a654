"""Importing a uv.lock of 300 packages, beside `uv export --frozen` of the same lock in the same run.

    python tests/benchmarks/bench_import.py [RUNS]

The lock is generated: 300 packages in a graph, a third of them compiled, with wheels for as many machines as real ones
have. What is timed is from the file to the pins with the one file of each that ours would hold, compared with
pyproject.toml. Goal: 0.3 s.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import row, seconds

PACKAGES = 300
MACHINES = (
    *("macosx_10_13_x86_64", "macosx_11_0_arm64", "manylinux_2_17_x86_64.manylinux2014_x86_64"),
    *("manylinux_2_17_aarch64.manylinux2014_aarch64", "musllinux_1_2_x86_64", "musllinux_1_2_aarch64"),
    *("win32", "win_amd64"),
)
PYTHONS = ("cp310", "cp311", "cp312", "cp313", "cp314")
HOST = "https://files.example/packages/ab/cd/0123456789abcdef0123456789abcdef0123456789abcdef01234567"


def main() -> None:
    """Print the table, or be the process that is measured."""
    if sys.argv[1:2] == ["--import"]:
        imported(Path(sys.argv[2]))
        return
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "uv.lock").write_text(lock())
        (folder / "pyproject.toml").write_text(
            '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.10"\n'
            f"dependencies = {json.dumps([package(number) for number in roots()])}\n"
        )
        row("the lock", f"{(folder / 'uv.lock').stat().st_size / 1e6:.1f} MB", f"{PACKAGES} packages")
        argv = [sys.executable, __file__, "--import", name]
        ours = min(float(subprocess.run(argv, capture_output=True, check=True).stdout) for _ in range(runs))
        row("file to pins and chosen files", f"{ours:.3f} s", "goal 0.3 s", ok=ours <= 0.3)
        from uv import find_uv_bin

        uv = [find_uv_bin(), "export", "--frozen", "--offline", "--quiet", "--project", name, "-o", f"{name}/out.txt"]
        peer = min(seconds(uv, runs=1) for _ in range(runs))
        row("`uv export --frozen` of it, a whole process", f"{peer:.3f} s", f"{ours / peer:.2f} x")


def imported(folder: Path) -> None:
    """Print how long reading and choosing took, once the interpreter and mlbox's own modules are there."""
    from mlbox.http import Http
    from mlbox.lock.foreign.completing import complete
    from mlbox.lock.foreign.model import Selection
    from mlbox.lock.foreign.uv import read_uv
    from mlbox.lock.model import Target
    from mlbox.lock.python.model import Index, Indexes

    target = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")
    indexes, http = Indexes(default=Index(name="default", url="https://i.example/simple")), Http()
    start = time.perf_counter()
    spec = (folder / "pyproject.toml").read_bytes()
    pins = read_uv((folder / "uv.lock").read_bytes(), Selection(target=target, spec=spec)).pins
    pins = complete(pins, target, indexes, http, folder=folder)
    taken = time.perf_counter() - start
    assert len(pins) == PACKAGES and all(len(pin.files) == 1 for pin in pins)
    print(taken)


def lock() -> str:
    """Return the uv.lock."""
    app = "".join(f'    {{ name = "{package(number)}" }},\n' for number in roots())
    wanted = "".join(f'    {{ name = "{package(number)}" }},\n' for number in roots())
    parts = [
        'version = 1\nrevision = 3\nrequires-python = ">=3.10"\n\n[[package]]\nname = "app"\nversion = "1"\n'
        f'source = {{ virtual = "." }}\ndependencies = [\n{app}]\n\n[package.metadata]\nrequires-dist = [\n{wanted}]\n'
    ]
    parts += [entry(number) for number in range(PACKAGES)]
    return "\n".join(parts)


def roots() -> range:
    """Return the packages that the project itself asks for."""
    return range(0, PACKAGES, 10)


def package(number: int) -> str:
    """Return a package's name."""
    return f"package-{number:03}"


def entry(number: int) -> str:
    """Return one package: it asks for those that come after it, some of them on other machines only."""
    needs = [n for n in (number + 1, number + 2, number + 7) if n < PACKAGES]
    marks = ("", "", ", marker = \"python_full_version < '3.12' or sys_platform == 'win32'\"")
    lines = "".join(f'    {{ name = "{package(n)}"{mark} }},\n' for n, mark in zip(needs, marks, strict=False))
    module = package(number).replace("-", "_")
    tags = ["py3-none-any"]
    if number % 3 == 0:
        tags = [f"{python}-{python}-{machine}" for python in PYTHONS for machine in MACHINES]
    wheels = "".join(f"    {{ {file(f'{module}-1.{number}.0-{tag}.whl', n)} }},\n" for n, tag in enumerate(tags))
    return (
        f'[[package]]\nname = "{package(number)}"\nversion = "1.{number}.0"\n'
        f'source = {{ registry = "https://i.example/simple" }}\ndependencies = [\n{lines}]\n'
        f"sdist = {{ {file(f'{module}-1.{number}.0.tar.gz', number)} }}\nwheels = [\n{wheels}]\n"
    )


def file(name: str, number: int) -> str:
    """Return what a uv.lock says of a file."""
    moment = "2025-06-01T12:34:56.789Z"
    return f'url = "{HOST}/{name}", hash = "sha256:{number:064x}", size = {1000 + number}, upload-time = "{moment}"'


main()
