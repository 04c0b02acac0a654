"""Unpacking wheels to pieces, beside uv installing the same files with an empty cache into an empty folder.

    python tests/benchmarks/bench_unpack.py WHEELS [RUNS]

WHEELS is a folder of wheels for this Python. The goal is 0.6 of uv's time, with less than 60 MB of memory
for each thread when a wheel of 1 GB is among them.
"""

import os
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import peak_memory, ratio, row, seconds

from mlbox.build.wheel import unpack_wheel
from mlbox.plan.model import WheelPiece

THREADS = 2
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def main() -> None:
    """Print the table."""
    if sys.argv[1] == "--unpack":
        unpack(Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
        return
    wheels = sorted(map(str, Path(sys.argv[1]).glob("*.whl")))
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as name:
        scratch = Path(name)
        ours, peer = compare(scratch, wheels, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
        ratio(f"unpack {len(wheels)} wheels to pieces / uv pip install", ours, peer, 0.6)
        big = peak_memory(ours_argv(scratch / "big", [big_wheel(scratch)]))
        small = peak_memory(ours_argv(scratch / "small", []))
        row("memory to unpack a 1 GB wheel", f"{(big - small) / 1e6:.0f} MB", "(goal 60 MB)", ok=big - small < 60e6)


def compare(scratch: Path, wheels: list[str], runs: int) -> tuple[float, float]:
    """Return both times of the run with the median ratio, run in turn, each into a folder of its own on a settled disk.

    Nothing is removed before the end: ext4 searches past every inode that was freed in the last seconds, so a
    run just after a removal measures that search.
    """
    times: list[tuple[float, float]] = []
    for run in range(runs):
        ours = seconds(ours_argv(scratch / f"pieces{run}", wheels), before=os.sync, runs=1)
        peer = seconds(uv_argv(scratch / f"cache{run}", scratch / f"target{run}", wheels), before=os.sync, runs=1)
        print(f"  ours {ours:.2f} s, uv {peer:.2f} s", file=sys.stderr, flush=True)
        times.append((ours, peer))
    return sorted(times, key=lambda both: both[0] / both[1])[runs // 2]


def uv_argv(cache: Path, target: Path, wheels: list[str]) -> list[str]:
    """Return the command that installs `wheels` with uv."""
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--no-config", "--offline", "--no-deps"]
    uv += ["--link-mode", "copy", "--cache-dir", str(cache), "--target", str(target), "--python", sys.executable]
    return [*uv, *wheels]


def ours_argv(folder: Path, wheels: list[str]) -> list[str]:
    """Return the command that unpacks `wheels` in a process of its own, its start included."""
    return [sys.executable, __file__, "--unpack", str(folder), *wheels]


def unpack(folder: Path, wheels: list[Path]) -> None:
    """Unpack each wheel to a piece of its own, the biggest first."""
    wheels.sort(key=lambda path: -path.stat().st_size)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda path: unpack_wheel(path, folder / path.name, piece_of(path)), wheels):
            pass


def piece_of(path: Path) -> WheelPiece:
    """Return the piece of a wheel file."""
    name, version = path.name.split("-")[:2]
    return WheelPiece(name=name, version=version, filename=path.name, sha256="", python=PYTHON)


def big_wheel(folder: Path) -> str:
    """Make a wheel with one member of 1 GB."""
    info, block = "big-1.dist-info", os.urandom(1 << 19) + bytes(1 << 19)
    path = folder / "big-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        with wheel.open("big/weights.bin", "w") as file:
            for _ in range(1000):
                file.write(block)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: big\nVersion: 1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\n")
        listed = ["big/weights.bin", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"]
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in listed))
    return str(path)


if __name__ == "__main__":
    main()
