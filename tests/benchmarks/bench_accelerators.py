"""Time what a second accelerator costs when locking, and what it adds to the store.

    python tests/benchmarks/bench_accelerators.py [RUNS]

Builds of torch are made here (2.9.1+cpu, 2.9.1+cu126 with twelve nvidia packages) and lie in a folder; the other
packages are real and come from the configured index. Locking is timed with empty caches, of Debian's indexes and of
uv; one accelerator and two in turn, so that a machine whose speed drifts is fair to both. The builds that are locked
are small: uv reads the whole of a file in a folder for its hash, where an index says it.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from fakes.index import make_wheel
from fakes.program import Program
from measure import row

GOAL = 0.30
LIBRARIES = (
    "blas",
    "cudnn",
    "cufft",
    "cufile",
    "cupti",
    "curand",
    "cusolver",
    "cusparse",
    "nccl",
    "nvjitlink",
    "nvrtc",
    "nvtx",
)
REQUIREMENTS = ("torch", "transformers", "scikit-learn", "fastapi", "pandas")


def make_wheels(folder: Path, size: int) -> None:
    """Write builds of torch and what they bring, of so many bytes each."""
    nvidia = [f"nvidia-{name}-cu12==12.6" for name in LIBRARIES]
    shared = ["filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec"]
    for build, requires in (("cpu", shared), ("cu126", [*shared, *nvidia])):
        wheels = [make_wheel("torch", f"{version}+{build}", requires=requires) for version in ("2.8.0", "2.9.1")]
        for name, data in wheels:
            (folder / name).write_bytes(data)
    for name in LIBRARIES:
        file, data = make_wheel(f"nvidia-{name}-cu12", "12.6", files={f"nvidia/{name}.so": bytes(size)})
        (folder / file).write_bytes(data)


def locking(program: Program, accelerators: tuple[str, ...]) -> float:
    """Return the seconds that `mlbox lock` takes from nothing."""
    (program.cwd / "mlbox.lock").unlink(missing_ok=True)
    shutil.rmtree(program.home, ignore_errors=True)
    shutil.rmtree(program.env["UV_CACHE_DIR"], ignore_errors=True)
    words = [word for name in accelerators for word in ("--accelerator", name)]
    began = time.perf_counter()
    program.run("lock", *words)
    return time.perf_counter() - began


def compare(what: str, program: Program, runs: int) -> None:
    """Print what the second accelerator adds."""
    one: list[float] = []
    two: list[float] = []
    for _ in range(runs):
        one.append(locking(program, ("cpu",)))
        two.append(locking(program, ("cpu", "cu126")))
    for name, measure in (("best", min), ("median", statistics.median)):
        first, second = measure(one), measure(two)
        more = second / first - 1
        row(
            f"{what}, {name} of {runs}",
            f"{first:.2f} -> {second:.2f} s",
            f"+{more:.0%} (goal +{GOAL:.0%})",
            ok=more <= GOAL,
        )


def disk(folder: Path) -> int:
    """Return the bytes of a folder, each file once however many names it has."""
    found = {(status.st_dev, status.st_ino): status.st_blocks * 512 for status in map(os.lstat, folder.rglob("*"))}
    return sum(found.values())


def main() -> None:
    """Run everything."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = folder / "project"
        (project / "wheels").mkdir(parents=True)
        make_wheels(project / "wheels", 1 << 10)
        (project / "requirements.txt").write_text("".join(f"{line}\n" for line in REQUIREMENTS))
        (project / "mlbox.toml").write_text('python = "3.11"\nfind-links = ["wheels"]\nignore = ["wheels/"]\n')
        program = Program(folder / "home", project, UV_CACHE_DIR=str(folder / "uv"))
        compare("lock, nothing cached", program, runs)
        if os.geteuid() == 0:
            make_wheels(project / "wheels", 9 << 20)
            (project / "mlbox.lock").unlink()
            program.run("lock", "--accelerator", "cpu", "--accelerator", "cu126")
            program.run("build", "--accelerator", "cpu")
            before = disk(program.home)
            program.run("build", "--accelerator", "cu126")
            added = disk(program.home) - before
            own = sum(path.stat().st_size for path in (project / "wheels").glob("*cu1*")) + len(LIBRARIES) * (9 << 20)
            row(
                "store: a second image of 12 x 9 MiB and torch of its own",
                f"{added / 1e6:.1f} MB",
                f"of which its own {own / 1e6:.1f}",
            )
            program.run("prune", "--built", "-f", code=None)


if __name__ == "__main__":
    main()
