"""How long lock and build take, beside uv and `docker build` with uv, on the same wheels in one run.

    python tests/benchmarks/bench_build.py [DOCKER_HOST]

DOCKER names the client (one that has BuildKit), should the first on PATH be another.

Uses a store of its own; downloads once. With DOCKER_HOST (a dockerd that may use the host's network) the same
steps are timed there too, on a base image that mlbox made.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from measure import peak_memory, ratio, row, seconds

from mlbox.lock.file import read_lock

DOCKER = os.environ.get("DOCKER", "docker")
MLBOX = str(Path(sys.executable).with_name("mlbox"))
UV = str(Path(sys.executable).with_name("uv"))
REQUIREMENTS = ["scikit-learn", "pandas", "matplotlib", "transformers", "datasets", "fastapi", "uvicorn"]
OLDER = "uvicorn<0.40"
"""One requirement changed: a pure Python package of the middle of the set, another version of it."""

DOCKERFILE = """\
FROM mlbox-bench-base
ENV SSL_CERT_FILE=/ca.crt
COPY ca.crt /
COPY uv /usr/local/bin/uv
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/uv \\
    uv pip install --link-mode copy --python /opt/mlbox/env/bin/python --no-deps -r requirements.txt
COPY . .
"""


class Bench:
    """A project, a store and a folder for the peers, all below one scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.project = scratch / "project"
        self.base = scratch / "base"
        for folder in (self.project, self.base):
            folder.mkdir()
            (folder / "mlbox.toml").write_text('python = "3.11"\n')
        (self.base / "requirements.txt").write_text("")
        self.require(REQUIREMENTS)
        self.touch()
        self.homes = 0
        os.environ["MLBOX_HOME"] = str(scratch / "home-0")

    def require(self, requirements: list[str]) -> None:
        """Write the requirements."""
        (self.project / "requirements.txt").write_text("\n".join(requirements) + "\n")

    def touch(self) -> None:
        """Change the project's code."""
        (self.project / "train.py").write_text(f"print({time.time_ns()})\n")

    def mlbox(self, *args: str, runs: int = 1, **options: object) -> float:
        """Time one mlbox command in the project."""
        return seconds([MLBOX, *args], runs=runs, cwd=self.project, **options)

    def fresh(self) -> None:
        """Go on with an empty store that has the downloads and the base.

        Nothing is removed before the end: ext4 searches past inodes that were freed in the last seconds, so a
        benchmark that cleans up before each run measures that search.
        """
        before = Path(os.environ["MLBOX_HOME"])
        self.homes += 1
        home = self.scratch / f"home-{self.homes}"
        shutil.copytree(before / "artifacts", home / "artifacts", copy_function=os.link)
        shutil.copytree(before / "metadata", home / "metadata")
        os.environ["MLBOX_HOME"] = str(home)
        subprocess.run([MLBOX, "build", "-t", "base"], cwd=self.base, check=True, capture_output=True)
        os.sync()

    def wheels(self) -> Path:
        """Return a folder with the locked wheels under their own names."""
        folder = self.scratch / "wheels"
        folder.mkdir(exist_ok=True)
        for package in read_lock(self.project / "mlbox.lock").packages:
            target = folder / package.filename
            if not target.exists():
                os.link(Path(os.environ["MLBOX_HOME"]) / "artifacts" / package.sha256, target)
        return folder


def bench_lock(bench: Bench) -> None:
    """Cold and warm locks."""
    uv_cache = bench.scratch / "uv-cache"
    compile_ = [
        UV, "pip", "compile", "-q", "--no-config", "--generate-hashes", "--cache-dir", str(uv_cache),
        "--python-version", "3.11.2", "--python-platform", "x86_64-manylinux_2_36", "--python", sys.executable,
        str(bench.project / "requirements.txt"),
    ]  # fmt: skip
    cold_uv = seconds(compile_, before=lambda: shutil.rmtree(uv_cache, ignore_errors=True), runs=3)

    def cold() -> None:
        bench.homes += 1
        os.environ["MLBOX_HOME"] = str(bench.scratch / f"home-{bench.homes}")
        os.environ["UV_CACHE_DIR"] = str(bench.scratch / f"uv-cache-{bench.homes}")
        (bench.project / "mlbox.lock").unlink(missing_ok=True)

    ratio("mlbox lock, cold / uv pip compile --generate-hashes", bench.mlbox("lock", before=cold, runs=3), cold_uv, 1.3)
    warm = bench.mlbox("lock", runs=3)
    row("mlbox lock, nothing changed", f"{warm:.3f} s", "goal 1 s", ok=warm <= 1)


def bench_unpack(bench: Bench) -> None:
    """The environment from cached wheels, beside uv into an empty folder; in turn, five rounds."""
    wheels = [str(path) for path in bench.wheels().iterdir()]

    def install(number: int) -> list[str]:
        return [
            UV, "pip", "install", "-q", "--no-config", "--offline", "--no-deps", "--link-mode", "copy",
            "--cache-dir", str(bench.scratch / f"uv-{number}"), "--target", str(bench.scratch / f"target-{number}"),
            "--python", sys.executable, *wheels,
        ]  # fmt: skip

    ours, peers = [], []
    for number in range(5):
        ours.append(bench.mlbox("build", "-t", "bench", before=bench.fresh))
        peers.append(seconds(install(number), before=os.sync, runs=1))
    ratio("mlbox build, cached wheels / uv pip install", sorted(ours)[2], sorted(peers)[2], 0.6)


def bench_memory(bench: Bench) -> None:
    """A wheel of 1 GB: how much memory the build of it takes."""
    folder = bench.scratch / "links"
    folder.mkdir()
    make_large_wheel(folder, 1_000_000_000)
    bench.require(["mlbox-bench-large"])
    bench.mlbox("lock", "--find-links", str(folder))
    build = [MLBOX, "build", "-t", "large", "--find-links", str(folder)]
    peak = peak_memory(build, cwd=bench.project)
    row("mlbox build, peak memory with a wheel of 1 GB", f"{peak / 1e6:.0f} MB", "goal 300 MB", ok=peak <= 300e6)
    bench.require(REQUIREMENTS)


def make_large_wheel(folder: Path, size: int) -> None:
    """Write a wheel with one file of `size` bytes that do not compress well."""
    block = os.urandom(1 << 20)
    content = hashlib.sha256()
    info = "mlbox_bench_large-1.0.dist-info"
    with zipfile.ZipFile(
        folder / "mlbox_bench_large-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED, True, 1
    ) as wheel:
        with wheel.open("mlbox_bench_large/weights.bin", "w", force_zip64=True) as file:
            for _ in range(size >> 20):
                content.update(block)
                file.write(block)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mlbox-bench-large\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        digest = base64.urlsafe_b64encode(content.digest()).rstrip(b"=").decode()
        rows = [f"mlbox_bench_large/weights.bin,sha256={digest},{size >> 20 << 20}"]
        rows += [f"{info}/{name},," for name in ("METADATA", "WHEEL", "RECORD")]
        wheel.writestr(f"{info}/RECORD", "\n".join(rows) + "\n")


def bench_changes(bench: Bench) -> dict[str, float]:
    """What people do all day."""
    nothing = bench.mlbox("build", "-t", "bench", runs=5)
    code = bench.mlbox("build", "-t", "bench", before=bench.touch, runs=5)
    row("mlbox build, nothing changed", f"{nothing:.3f} s", "goal 0.2 s", ok=nothing <= 0.2)
    row("mlbox build, code changed", f"{code:.3f} s", "goal 0.3 s", ok=code <= 0.3)
    bench.require([*REQUIREMENTS, OLDER])
    relock = bench.mlbox("lock")
    requirement = bench.mlbox("build", "-t", "bench2")
    fetched = requirement

    def forget() -> None:
        # Everything of the first image stays; only what the changed requirement made is built again.
        subprocess.run([MLBOX, "rmi", "bench2"], check=True, capture_output=True)
        subprocess.run([MLBOX, "prune", "-f"], check=True, capture_output=True)

    requirement = bench.mlbox("build", "-t", "bench2", before=forget, runs=3)
    row("mlbox lock, one requirement changed", f"{relock:.3f} s")
    row("mlbox build, one requirement changed, with its download", f"{fetched:.3f} s")
    return {"nothing": nothing, "code": code, "requirement": requirement}


def bench_docker(bench: Bench, host: str, ours: dict[str, float]) -> None:
    """The same with BuildKit, a cache mount and uv."""
    os.environ["DOCKER_HOST"] = host
    os.environ["DOCKER_BUILDKIT"] = "1"
    context = bench.scratch / "context"
    context.mkdir()
    subprocess.run([DOCKER, "builder", "prune", "-af"], check=True, capture_output=True)
    load_base(bench)
    shutil.copy(UV, context / "uv")
    shutil.copy(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), context / "ca.crt")
    (context / "Dockerfile").write_text(DOCKERFILE)

    def lock_into_context(requirements: list[str]) -> None:
        bench.require(requirements)
        bench.mlbox("lock")
        pins = [f"{one.name}=={one.version}\n" for one in read_lock(bench.project / "mlbox.lock").packages]
        (context / "requirements.txt").write_text("".join(pins))

    def touch() -> None:
        (context / "train.py").write_text(f"print({time.time_ns()})\n")

    def docker(**options: object) -> float:
        build = [DOCKER, "build", "-q", "--network", "host", "-t", "mlbox-bench-built", "."]
        return seconds(build, runs=1, cwd=context, **options)

    lock_into_context(REQUIREMENTS)
    row("docker build with uv, first", f"{docker():.3f} s")
    lock_into_context([*REQUIREMENTS, OLDER])
    docker()
    lock_into_context(REQUIREMENTS)
    (context / "requirements.txt").open("a").write("# changed\n")
    requirement = docker()
    ratio("mlbox build, one requirement changed / docker build with uv", ours["requirement"], requirement, 0.15)
    row("docker build with uv, code changed", f"{docker(before=touch):.3f} s")
    row("docker build with uv, nothing changed", f"{docker():.3f} s")


def load_base(bench: Bench) -> None:
    """Give dockerd the base image that the project stands on."""
    archive, layout = bench.scratch / "base.tar", bench.scratch / "layout"
    subprocess.run([MLBOX, "save", "base", "-o", str(layout)], check=True, capture_output=True)
    copy = ["skopeo", "copy", "-q", f"oci:{layout}:base:latest", f"docker-archive:{archive}:mlbox-bench-base:latest"]
    subprocess.run(copy, check=True)
    subprocess.run([DOCKER, "load", "-q", "-i", str(archive)], check=True, capture_output=True)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="mlbox-bench-") as scratch:
        bench = Bench(Path(scratch))
        bench_lock(bench)
        bench.mlbox("build", "-t", "bench")
        bench_unpack(bench)
        bench_memory(bench)
        bench.mlbox("lock")
        bench.mlbox("build", "-t", "bench")
        changes = bench_changes(bench)
        if len(sys.argv) > 1:
            bench_docker(bench, sys.argv[1], changes)
        else:
            row("mlbox build, one requirement changed, cached", f"{changes['requirement']:.3f} s")


if __name__ == "__main__":
    main()
