"""Locking a conda environment, beside conda-lock alone on the same channel in the same run.

    python tests/benchmarks/bench_conda.py [RUNS]

A channel of 300 packages lies on loopback, and an environment asks for 40 of them, with 80 below those. The peer is
conda-lock as a user would start it, with the same conda below it (rattler's solver), on the same environment.yml. Ours
is from the project's files to the locked packages, by name, hash, size and channel. Goal: 10 % more.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.conda import Made, channel_files, make_package
from fakes.server import Server, serving
from measure import interleaved, row

PACKAGES = 300
ASKED = 40


def main() -> None:
    """Print the table, or be the process that is measured."""
    if sys.argv[1:2] == ["--lock"]:
        locked(Path(sys.argv[2]))
        return
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as name, serving() as server:
        folder = Path(name)
        fill(server)
        ours = [sys.executable, __file__, "--lock", str(prepared(folder / "ours", server))]
        theirs = conda_lock(prepared(folder / "theirs", server))
        os.environ |= {"MLBOX_CONDA_QUESTION": f"{folder}/theirs/question.json", "XDG_CACHE_HOME": f"{folder}/cache"}
        times = interleaved({"ours": ours, "theirs": theirs}, runs)
        own = json.loads((folder / "ours/times.json").read_text())
        row("the channel", f"{PACKAGES} packages", f"{own['locked']} are locked")
        ratio = times["ours"] / times["theirs"]
        row(
            "whole processes, ours and conda-lock's", f"{times['ours']:.3f} / {times['theirs']:.3f} s", f"{ratio:.2f} x"
        )
        share = own["own"] / own["conda-lock"]
        row(
            "own code beside the conda-lock it waits for",
            f"{own['own']:.3f} s",
            f"{share:.1%} (goal 10 %)",
            ok=share <= 0.1,
        )


def fill(server: Server) -> None:
    """Serve the channel 'bench': packages that ask for two earlier ones each, in two versions."""
    packages = [package(number, version) for number in range(PACKAGES) for version in ("1.0", "1.1")]
    server.files = {f"/bench/{path}": data for path, data in channel_files(packages).items()}


def package(number: int, version: str) -> Made:
    """Return one of them."""
    below = {number // 2, number // 3} - {number}
    depends = [f"package-{other:03} >=1" for other in sorted(below)]
    return make_package(f"package-{number:03}", version, files={"share/x": b"x"}, depends=depends)


def prepared(folder: Path, server: Server) -> Path:
    """Make a project in a new folder."""
    folder.mkdir()
    asked = "".join(f"  - package-{number:03}\n" for number in range(0, PACKAGES, PACKAGES // ASKED))
    (folder / "environment.yml").write_text(f"channels:\n  - {server.url}/bench\ndependencies:\n{asked}")
    return folder


def conda_lock(folder: Path) -> list[str]:
    """Return the command of conda-lock alone."""
    from mlbox.lock.conda import stand_in

    conda = folder / "conda"
    conda.write_text(f'#!/bin/sh\nexec {sys.executable} -I {stand_in.__file__} "$@"\n')
    conda.chmod(0o755)
    (folder / "question.json").write_text(
        json.dumps({"cache": f"{folder}/cache", "channels": {}, "locked": {}, "pip": ""})
    )
    (folder / "mapping.json").write_text("{}")
    return [
        *(sys.executable, "-m", "conda_lock", "lock", "--conda", str(conda), "--platform", "linux-64"),
        *("--file", f"{folder}/environment.yml", "--lockfile", f"{folder}/conda-lock.yml", "--without-cuda"),
        *("--pypi_to_conda_lookup_file", f"file://{folder}/mapping.json"),
    ]


def locked(folder: Path) -> None:
    """Lock as `mlbox lock` does the conda part of one, and write down how long conda-lock and the rest took."""
    from mlbox.events import SILENT
    from mlbox.http import Http
    from mlbox.lock.conda import conda_lock as module
    from mlbox.lock.conda.resolve import lock_conda
    from mlbox.lock.model import Target
    from mlbox.lock.python.config import indexes_for
    from mlbox.paths import Home
    from mlbox.project.discover import load_project

    waited = 0.0
    run = module.process.run

    def timed(*args: object, **options: object) -> object:
        nonlocal waited
        start = time.perf_counter()
        try:
            return run(*args, **options)  # type: ignore[arg-type]
        finally:
            waited += time.perf_counter() - start

    module.process.run = timed  # type: ignore[assignment]
    start = time.perf_counter()
    project = load_project(folder)
    target = Target(arch="amd64", python="", python_full="", glibc="2.41")
    found = lock_conda(
        project,
        target,
        indexes_for(project),
        previous=None,
        upgrade=False,
        http=Http(),
        listener=SILENT,
        home=Home(folder / "home"),
    )
    own = time.perf_counter() - start - waited
    text = json.dumps({"own": own, "conda-lock": waited, "locked": len(found.packages)})
    (folder / "times.json").write_text(text)


if __name__ == "__main__":
    main()
