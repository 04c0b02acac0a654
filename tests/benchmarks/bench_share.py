"""How long push and pull take, beside Docker, through one registry on loopback.

    DOCKER=/usr/bin/docker python tests/benchmarks/bench_share.py [DOCKER_HOST]

DOCKER names the client (one that has BuildKit), should the first on PATH be another. Needs docker-registry and skopeo;
uses stores of its own; downloads once. With DOCKER_HOST (a dockerd that may reach loopback) the same image is pushed
and pulled there too, in turn; where something changes, Docker's is an image of the same wheels from a Dockerfile.
"""

import json
import os
import random
import shutil
import signal
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

from bench_build import MLBOX, OLDER, REQUIREMENTS, Bench, make_large_wheel
from docker_peer import Docker, blobs
from measure import peak_memory, ratio, row, seconds

from mlbox.oci.digest import Digest, hex_of
from mlbox.paths import Home
from mlbox.store.store import Store

ROUNDS = 3
KILLS = 5
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


def bench_push(bench: Bench, stack: ExitStack, docker: Docker | None) -> str:
    """First pushes, each to a registry that has nothing; return the last registry's address."""
    ours, peers = [], []
    for _ in range(ROUNDS):
        address = stack.enter_context(registry(bench.scratch))
        os.sync()
        ours.append(seconds([MLBOX, "push", "-q", "bench", "--to", f"{address}/mlbox/bench:1"], runs=1))
        if docker:
            peers.append(docker.push("bench", f"{address}/docker/bench:1"))
    against("first push", statistics.median(ours), statistics.median(peers) if peers else None, 0.4)
    if docker:
        mine, theirs = (sum(blobs(address, name, "1").values()) for name in ("mlbox/bench", "docker/bench"))
        row(
            "bytes of the blobs, zstd / gzip",
            f"{mine / 1e6:.0f} / {theirs / 1e6:.0f} MB",
            f"{mine / theirs:.2f} x (goal 1)",
            ok=mine <= theirs,
        )
    again = seconds([MLBOX, "push", "-q", "bench", "--to", f"{address}/mlbox/bench:1"], runs=3)
    against("push, nothing changed", again, docker.push("bench", f"{address}/docker/bench:1") if docker else None)
    return address


def bench_changes(bench: Bench, address: str, docker: Docker | None) -> None:
    """Pushes after the code changed, after a comment beside the requirements did, and after one requirement did."""
    if docker:
        docker.require()
        docker.build("built-1")
        docker.push("built-1", f"{address}/docker/built:1")
        docker.touch()
        docker.build("built-2")
        docker.require("# a comment\n")
        docker.build("built-3")
    bench.touch()
    bench.mlbox("build", "-t", "bench-2")
    bench_change(address, "code changed", 2, docker, most=1, limit=1.0)
    bench.require([*REQUIREMENTS, "# a comment"])
    bench.mlbox("lock")
    bench.mlbox("build", "-t", "bench-3")
    bench_change(address, "a comment in requirements.txt", 3, docker, most=1)
    bench.require([*REQUIREMENTS, OLDER])
    bench.mlbox("lock")
    bench.mlbox("build", "-t", "bench-4")
    if docker:
        docker.require()
        docker.build("built-4")
    bench_change(address, "one requirement changed", 4, docker, most=2)


def bench_change(
    address: str, what: str, number: int, docker: Docker | None, *, most: int, limit: float | None = None
) -> None:
    """Push the image of a change, and Docker's; `most` layers and `limit` seconds are ours to take."""
    elapsed, pushed = report("push", f"bench-{number}", "--to", f"{address}/mlbox/bench:{number}")
    sent = [layer for layer in pushed["layers"] if layer["how"] == "uploaded"]
    theirs = docker.push(f"built-{number}", f"{address}/docker/built:{number}") if docker else None
    against(f"push, {what}", elapsed, theirs)
    goal = f"goal {most} layers" + (f", {limit:g} s" if limit else "")
    ok = len(sent) <= most and elapsed <= (limit or elapsed) and pushed["moved"] == sum(one["size"] for one in sent)
    peer = f"; docker {moved(address, number) / 1e6:.3f} MB" if docker else ""
    row("  layers and bytes sent", f"{len(sent)}, {pushed['moved'] / 1e6:.3f} MB", f"{goal}{peer}", ok=ok)


def moved(address: str, number: int) -> int:
    """Return the bytes that Docker had to send for an image of the Dockerfile: blobs that those before it lack."""
    before = {digest for one in range(1, number) for digest in blobs(address, "docker/built", str(one))}
    return sum(size for digest, size in blobs(address, "docker/built", str(number)).items() if digest not in before)


def bench_second(bench: Bench, address: str) -> None:
    """Push the image of another project with the same environment."""
    other = bench.scratch / "other"
    other.mkdir()
    for name in ("mlbox.toml", "mlbox.lock", "requirements.txt"):
        shutil.copy(bench.project / name, other / name)
    (other / "serve.py").write_text("print('another program')\n")
    for line in (["build", "-t", "other"], ["push", "-q", "other", "--to", f"{address}/mlbox/other:1"]):
        subprocess.run([MLBOX, *line], cwd=other, check=True, capture_output=True)


def bench_pull(bench: Bench, address: str, docker: Docker | None) -> None:
    """Cold pulls until the image can run, and a pull beside it.

    Ours come first: Docker must remove its image before it can pull again, and ext4 searches past inodes that were
    freed in the last minute, which costs whoever makes files next several seconds.
    """
    homes = [str(bench.scratch / f"pulled-{number}") for number in range(ROUNDS)]
    ours = [runnable(address, home) for home in homes]
    second, pulled = report("pull", f"{address}/mlbox/other:1", home=homes[0])
    peers, theirs = [], None
    if docker:
        for _ in range(ROUNDS):
            docker.forget()
            peers.append(docker.pull(f"{address}/docker/bench:1"))
        docker.forget()
        docker.pull(f"{address}/docker/built:1")
        theirs = docker.pull(f"{address}/docker/built:3")
    against("cold pull until it can run", statistics.median(ours), statistics.median(peers) if peers else None, 0.35)
    against("pull of a second image with the same environment", second, theirs)
    row("  bytes fetched", f"{pulled['moved']} B", "goal 0.5 s", ok=second <= 0.5)


def runnable(address: str, home: str) -> float:
    """Time a cold pull, and see that what was pulled runs."""
    elapsed, _ = report("pull", f"{address}/mlbox/bench:1", home=home, before=os.sync)
    run = [MLBOX, "run", "--rm", "--network", "host", f"{address}/mlbox/bench:1", "python", "-c", "import sklearn"]
    subprocess.run(run, check=True, capture_output=True, env={**os.environ, "MLBOX_HOME": home})
    return elapsed


def bench_killed(bench: Bench, address: str) -> None:
    """Pulls into one store that are killed at random, then one that is not: it fetches nothing that was finished."""
    home, name = bench.scratch / "killed", f"{address}/mlbox/bench:1"
    env = {**os.environ, "MLBOX_HOME": str(home)}
    done: set[str] = set()
    kills = 0
    for _ in range(KILLS):
        process = subprocess.Popen([MLBOX, "pull", "-q", name], env=env, stdout=subprocess.DEVNULL, process_group=0)
        try:
            process.wait(timeout=random.uniform(0.2, 1.5))
        except subprocess.TimeoutExpired:
            kills += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        done |= finished(home, blobs(address, "mlbox/bench", "1"))
    _, pulled = report("pull", name, home=str(home))
    layers = {layer["diff_id"]: layer for layer in pulled["layers"]}
    digests = dict(zip(blobs(address, "mlbox/bench", "1"), layers.values(), strict=True))
    again = [one for one in done if (layers.get(one) or digests[one])["moved"]]
    total = sum(blobs(address, "mlbox/bench", "1").values())
    row(
        f"pull killed {kills} times, finished blobs fetched again",
        f"{len(again)} of {len(done)}",
        f"{pulled['moved'] / 1e6:.0f} of {total / 1e6:.0f} MB were left",
        ok=not again and kills > 0,
    )


def finished(home: Path, sizes: dict[str, int]) -> set[str]:
    """Return which layers (diffIDs) and which downloads (digests of blobs) a store has to the last byte."""
    artifacts = Store(Home(home)).artifacts
    whole = {
        digest
        for digest, size in sizes.items()
        if (path := artifacts.partial(hex_of(Digest(digest)))).exists() and path.stat().st_size == size
    }
    return whole | {f"sha256:{layer.name}" for layer in (home / "layers").glob("*") if (layer / "record.json").exists()}


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


def against(what: str, ours: float, theirs: float | None, limit: float | None = None) -> None:
    """Print our time, beside Docker's where it was measured."""
    if theirs is None:
        row(what, f"{ours:.3f} s")
    elif limit is None:
        row(f"{what} / docker", f"{ours:.3f} / {theirs:.3f} s", f"{ours / theirs:.2f} x")
    else:
        ratio(f"{what} / docker", ours, theirs, limit)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="mlbox-bench-") as scratch, ExitStack() as stack:
        bench = Bench(Path(scratch))
        bench.mlbox("build", "-t", "bench")
        docker = Docker(sys.argv[1], bench) if len(sys.argv) > 1 else None
        if docker:
            docker.load("bench")
        address = bench_push(bench, stack, docker)
        bench_second(bench, address)
        bench_changes(bench, address, docker)
        bench_pull(bench, address, docker)
        bench_killed(bench, address)
        bench_rebuilt(bench, address)
        bench_memory(bench, address)


if __name__ == "__main__":
    main()
