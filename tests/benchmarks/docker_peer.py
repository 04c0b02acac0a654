"""Docker beside mlbox in the benchmarks of sharing: mlbox's own image in it, and images as a Dockerfile makes them."""

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

from bench_build import DOCKER, MLBOX, UV, Bench, load_base
from measure import seconds

from mlbox.lock.file import read_lock

DOCKERFILE = """\
FROM mlbox-bench-base
COPY uv /usr/local/bin/uv
COPY requirements.txt .
RUN --mount=type=bind,source=wheels,target=/wheels \\
    uv pip install --no-cache --offline --no-index --find-links /wheels --link-mode copy \\
    --python /opt/mlbox/env/bin/python --no-deps -r requirements.txt
COPY train.py .
"""


class Docker:
    """A dockerd and the folder that it builds from."""

    def __init__(self, host: str, bench: Bench) -> None:
        os.environ["DOCKER_HOST"] = host
        os.environ["DOCKER_BUILDKIT"] = "1"
        self._bench = bench
        self._context = bench.scratch / "context"
        self._context.mkdir()
        shutil.copy(UV, self._context / "uv")
        (self._context / "Dockerfile").write_text(DOCKERFILE)
        self.touch()
        subprocess.run([DOCKER, "builder", "prune", "-af"], check=True, capture_output=True)
        subprocess.run([MLBOX, "build", "-t", "base"], cwd=bench.base, check=True, capture_output=True)
        load_base(bench)

    def load(self, name: str) -> None:
        """Take an image of mlbox's store under its name there."""
        archive, layout = self._bench.scratch / "docker.tar", self._bench.scratch / "docker-layout"
        subprocess.run([MLBOX, "save", name, "-o", str(layout)], check=True, capture_output=True)
        copy = ["skopeo", "copy", "-q", f"oci:{layout}:{name}:latest", f"docker-archive:{archive}:{name}:latest"]
        subprocess.run(copy, check=True)
        subprocess.run([DOCKER, "load", "-q", "-i", str(archive)], check=True, capture_output=True)
        archive.unlink()
        shutil.rmtree(layout)

    def touch(self) -> None:
        """Change the code."""
        (self._context / "train.py").write_text(f"print({os.urandom(8)})\n")

    def require(self, comment: str = "") -> None:
        """Take the requirements of mlbox's lock as it is now."""
        packages = read_lock(self._bench.project / "mlbox.lock").packages
        shutil.copytree(self._bench.wheels(), self._context / "wheels", copy_function=_link, dirs_exist_ok=True)
        pins = "".join(f"{one.name}=={one.version}\n" for one in packages)
        (self._context / "requirements.txt").write_text(pins + comment)

    def build(self, name: str) -> None:
        """Build what the context has now."""
        build = [DOCKER, "build", "-q", "--network", "none", "-t", name, "."]
        done = subprocess.run(build, cwd=self._context, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"docker build failed:\n{done.stderr[-2000:]}")

    def push(self, local: str, name: str) -> float:
        """Time a push of the image `local` as `name`."""
        subprocess.run([DOCKER, "tag", local, name], check=True, capture_output=True)
        os.sync()
        return seconds([DOCKER, "push", "-q", name], runs=1)

    def pull(self, name: str) -> float:
        """Time a pull."""
        os.sync()
        return seconds([DOCKER, "pull", "-q", name], runs=1)

    def forget(self) -> None:
        """Remove all images."""
        images = subprocess.run([DOCKER, "images", "-q"], check=True, capture_output=True, text=True).stdout.split()
        if images:
            subprocess.run([DOCKER, "rmi", "-f", *dict.fromkeys(images)], check=True, capture_output=True)
        subprocess.run([DOCKER, "builder", "prune", "-af"], check=True, capture_output=True)


def blobs(address: str, repository: str, tag: str) -> dict[str, int]:
    """Return the layers' blobs of an image in a registry: their sizes by digest."""
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    request = urllib.request.Request(f"http://{address}/v2/{repository}/manifests/{tag}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as response:
        return {layer["digest"]: layer["size"] for layer in json.load(response)["layers"]}


def _link(source: str, target: str) -> None:
    if not Path(target).exists():
        os.link(source, target)
