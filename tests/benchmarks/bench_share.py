"""How long push and pull take, beside Docker, through one registry on loopback.

    python tests/benchmarks/bench_share.py [DOCKER_HOST]

DOCKER names the client, should the first on PATH be another. Needs docker-registry and skopeo; uses stores of its
own; downloads once. With DOCKER_HOST the same image is pushed and pulled there too, in turn.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench_build import DOCKER, MLBOX, OLDER, REQUIREMENTS, Bench, make_large_wheel
from measure import peak_memory, ratio, row, seconds

ROUNDS = 3
MEMORY = 250e6


@contextmanager
def registry(scratch: Path) -> Iterator[str]:
    """Run an empty registry on loopback and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    folder = Path(tempfile.mkdtemp(dir=scratch, prefix="registry-"))
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    server = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield address
    finally:
        server.terminate()
        server.wait()


def report(
    *args: str, home: str | None = None, before: Callable[[], object] = lambda: None
) -> tuple[float, dict[str, Any]]:
    """Run one mlbox command and return its time and its JSON report."""
    before()
    env = {**os.environ, **({"MLBOX_HOME": home} if home else {})}
    start = time.perf_counter()
    done = subprocess.run([MLBOX, *args, "--format", "json"], capture_output=True, env=env)
    elapsed = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{args} failed:\n{done.stderr.decode()[-2000:]}")
    return elapsed, json.loads(done.stdout)[0]


def docker(*args: str, before: tuple[str, ...] = ()) -> float:
    """Time one docker command."""
    if before:
        subprocess.run([DOCKER, *before], check=True, capture_output=True)
    return seconds([DOCKER, *args], runs=1)


def docker_pull(name: str) -> float:
    """Time a pull by a Docker that has no image."""
    images = subprocess.run([DOCKER, "images", "-q"], check=True, capture_output=True, text=True).stdout.split()
    if images:
        subprocess.run([DOCKER, "rmi", "-f", *dict.fromkeys(images)], check=True, capture_output=True)
    os.sync()
    return docker("pull", "-q", name)


def blob_sizes(address: str, repository: str, tag: str) -> int:
    """Return the bytes of the layers' blobs of an image."""
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    request = urllib.request.Request(f"http://{address}/v2/{repository}/manifests/{tag}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as response:
        return sum(layer["size"] for layer in json.load(response)["layers"])


def bench_push(bench: Bench, stack: ExitStack, peer: bool) -> str:
    """First pushes, each to a registry that has nothing; return the last registry's address."""
    ours, peers = [], []
    for _ in range(ROUNDS):
        address = stack.enter_context(registry(bench.scratch))
        os.sync()
        ours.append(seconds([MLBOX, "push", "-q", "bench", "--to", f"{address}/mlbox/bench:1"], runs=1))
        if peer:
            os.sync()
            peers.append(
                docker("push", "-q", f"{address}/docker/bench:1", before=("tag", "bench", f"{address}/docker/bench:1"))
            )
    again = seconds([MLBOX, "push", "-q", "bench", "--to", f"{address}/mlbox/bench:1"], runs=3)
    if peer:
        ratio("first push / docker push", statistics.median(ours), statistics.median(peers), 0.4)
        mine, theirs = blob_sizes(address, "mlbox/bench", "1"), blob_sizes(address, "docker/bench", "1")
        row(
            "bytes of the blobs, zstd / gzip",
            f"{mine / 1e6:.0f} / {theirs / 1e6:.0f} MB",
            f"{mine / theirs:.2f} x (goal 1)",
            ok=mine <= theirs,
        )
    else:
        row("first push", f"{statistics.median(ours):.3f} s")
    row("push again", f"{again:.3f} s")
    return address


def bench_changes(bench: Bench, address: str) -> None:
    """A push after the code changed, and after one requirement did."""
    bench.touch()
    bench.mlbox("build", "-t", "bench-code", runs=1)
    elapsed, pushed = report("push", "bench-code", "--to", f"{address}/mlbox/bench:2")
    sent = [layer for layer in pushed["layers"] if layer["how"] == "uploaded"]
    row(
        "push, code changed",
        f"{elapsed:.3f} s",
        f"goal 1 s, {len(sent)} layer, {pushed['moved']} B",
        ok=elapsed <= 1 and len(sent) == 1,
    )
    bench.require([*REQUIREMENTS, OLDER])
    bench.mlbox("lock", runs=1)
    bench.mlbox("build", "-t", "bench-requirement", runs=1)
    elapsed, pushed = report("push", "bench-requirement", "--to", f"{address}/mlbox/bench:3")
    sent = [layer for layer in pushed["layers"] if layer["how"] == "uploaded"]
    row(
        "push, one requirement changed",
        f"{elapsed:.3f} s",
        f"goal 2 layers: {len(sent)}, {pushed['moved'] / 1e6:.1f} MB",
        ok=len(sent) <= 2,
    )


def bench_pull(bench: Bench, address: str, peer: bool) -> None:
    """Cold pulls until the image can run.

    Ours come first: Docker must remove its image before it can pull again, and ext4 searches past inodes that were
    freed in the last minute, which costs whoever makes files next several seconds.
    """
    homes = [str(bench.scratch / f"pulled-{number}") for number in range(ROUNDS)]
    ours = [report("pull", f"{address}/mlbox/bench:1", home=home, before=os.sync)[0] for home in homes]
    home = homes[0]
    if peer:
        peers = [docker_pull(f"{address}/docker/bench:1") for _ in range(ROUNDS)]
        ratio("cold pull / docker pull", statistics.median(ours), statistics.median(peers), 0.35)
    else:
        row("cold pull", f"{statistics.median(ours):.3f} s")
    env = {**os.environ, "MLBOX_HOME": home}
    subprocess.run([MLBOX, "run", "--rm", f"{address}/mlbox/bench:1", "true"], check=True, env=env)
    elapsed, pulled = report("pull", f"{address}/mlbox/bench:2", home=home)
    row(
        "pull of a second image with the same environment",
        f"{elapsed:.3f} s",
        f"goal 0.5 s, {pulled['moved']} B",
        ok=elapsed <= 0.5,
    )


def bench_rebuilt(bench: Bench, address: str) -> None:
    """Pulls into stores that have the pieces, or only the downloads."""
    source = Path(os.environ["MLBOX_HOME"])
    for part in ("pieces", "artifacts"):
        home = bench.scratch / f"with-{part}"
        # With hard links, so that the links of the layers are on the same file system.
        shutil.copytree(source / part, home / part, copy_function=os.link, symlinks=True)
        elapsed, pulled = report("pull", f"{address}/mlbox/bench:1", home=str(home))
        moved = pulled["moved"]
        row(f"pull, all {part} there", f"{elapsed:.3f} s", f"goal 1 MB: {moved / 1e6:.3f} MB", ok=moved < 1e6)
    home = bench.scratch / "thin"
    _, pushed = report("push", "bench", "--thin", "--to", f"{address}/mlbox/thin:1")
    elapsed, pulled = report("pull", f"{address}/mlbox/thin:1", home=str(home))
    row("push --thin", f"{pushed['moved'] / 1e6:.3f} MB")
    row("pull of a thin image, nothing there", f"{elapsed:.3f} s", f"{pulled['moved'] / 1e6:.0f} MB of packages")


def bench_memory(bench: Bench, address: str) -> None:
    """A layer of 1 GB."""
    folder = bench.scratch / "links"
    folder.mkdir()
    make_large_wheel(folder, 1_000_000_000)
    bench.require(["mlbox-bench-large"])
    bench.mlbox("lock", "--find-links", str(folder), runs=1)
    bench.mlbox("build", "-t", "large", "--find-links", str(folder), runs=1)
    push = peak_memory([MLBOX, "push", "-q", "large", "--to", f"{address}/mlbox/large:1"])
    row("push of a layer of 1 GB, peak memory", f"{push / 1e6:.0f} MB", "goal 250 MB", ok=push <= MEMORY)
    env = {**os.environ, "MLBOX_HOME": str(bench.scratch / "large")}
    pull = peak_memory([MLBOX, "pull", "-q", f"{address}/mlbox/large:1"], env=env)
    row("pull of a layer of 1 GB, peak memory", f"{pull / 1e6:.0f} MB", "goal 250 MB", ok=pull <= MEMORY)


def load_into_docker(bench: Bench) -> None:
    """Give dockerd the image under the name 'bench'."""
    archive, layout = bench.scratch / "bench.tar", bench.scratch / "layout"
    subprocess.run([MLBOX, "save", "bench", "-o", str(layout)], check=True, capture_output=True)
    copy = ["skopeo", "copy", "-q", f"oci:{layout}:bench:latest", f"docker-archive:{archive}:bench:latest"]
    subprocess.run(copy, check=True)
    subprocess.run([DOCKER, "load", "-q", "-i", str(archive)], check=True, capture_output=True)
    archive.unlink()
    shutil.rmtree(layout)


def main() -> None:
    """Print the table."""
    peer = len(sys.argv) > 1
    if peer:
        os.environ["DOCKER_HOST"] = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="mlbox-bench-") as scratch, ExitStack() as stack:
        bench = Bench(Path(scratch))
        bench.mlbox("build", "-t", "bench", runs=1)
        if peer:
            load_into_docker(bench)
        address = bench_push(bench, stack, peer)
        bench_pull_source = os.environ["MLBOX_HOME"]
        bench_changes(bench, address)
        bench_pull(bench, address, peer)
        os.environ["MLBOX_HOME"] = bench_pull_source
        bench_rebuilt(bench, address)
        bench_memory(bench, address)


if __name__ == "__main__":
    main()
