"""Taking in the layer of a foreign image, beside what others need for the same tar.

    python tests/benchmarks/bench_layers.py FOLDER [RUNS]

The files of FOLDER become one layer (GNU tar, then gzip). Peers: `sha256sum` and then `tar x` for the plain tar, as
little as one can do; `umoci unpack` of an image with the gzip layer. Goals: 1.2 of the first, 0.7 of the second, less
than 250 MB of memory for a layer of 1 GB, and layers in two threads faster than one after the other.
"""

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import peak_memory, ratio, row, seconds

from mlbox.codec import canonical_json
from mlbox.oci.digest import DiffID
from mlbox.oci.layer import END, Entry, header, padding
from mlbox.paths import Home
from mlbox.store.compression import compressed, decompressed
from mlbox.store.store import Store


def main() -> None:
    """Print the table, or be the process that is measured."""
    if sys.argv[1] == "--ingest":
        ingest(Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
        return
    source, runs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory(dir=source.parent) as name:
        scratch = Path(name)
        memory(scratch)  # first: a process begins with the peak of the one that starts it
        plain, packed = archives(source, scratch)
        known(plain), known(packed)
        row("the layer", f"{plain.stat().st_size / 1e6:.0f} MB", f"{packed.stat().st_size / 1e6:.0f} MB as gzip")
        script = 'sha256sum "$1" && mkdir "$2" && tar x -f "$1" -C "$2"'
        pair = compare(scratch, plain, ["sh", "-c", script, "sh", str(plain)], runs)
        ratio("take in a plain tar / sha256sum, then tar x", *pair, 1.2)
        layout(scratch / "layout", plain, packed)
        pair = compare(scratch, packed, ["umoci", "unpack", "--image", f"{scratch}/layout:x"], runs)
        ratio("take in a gzip layer / umoci unpack", *pair, 0.7)
        parallel(scratch, plain)


def compare(scratch: Path, layer: Path, peer: list[str], runs: int) -> tuple[float, float]:
    """Return both times of the run with the median ratio; nothing is removed before the end (see bench_unpack)."""
    times = []
    for run in range(runs):
        name = f"{layer.name}{run}{time.monotonic_ns()}"
        ours = seconds(ours_argv(scratch / f"home-{name}", layer), before=sync, runs=1)
        times.append((ours, seconds([*peer, str(scratch / f"peer-{name}")], before=sync, runs=1)))
        print(f"  ours {times[-1][0]:.2f} s, peer {times[-1][1]:.2f} s", file=sys.stderr, flush=True)
    return sorted(times, key=lambda both: both[0] / both[1])[runs // 2]


def parallel(scratch: Path, plain: Path) -> None:
    """Two layers of the same size at once, against one after the other."""
    other = scratch / "other.tar"
    other.write_bytes(plain.read_bytes() + bytes(512))
    known(other)
    alone = sum(seconds(ours_argv(scratch / f"alone-{one.name}", one), before=sync, runs=1) for one in (plain, other))
    known(other)
    both = seconds(ours_argv(scratch / "both", plain, other), before=sync, runs=1)
    ratio("two layers at once / one after the other", both, alone, 0.9)


def memory(scratch: Path) -> None:
    """The peak of a process that takes in one file of 1 GB."""
    big = scratch / "big.tar.gz"
    chunk = hashlib.sha256(b"x").digest() * (1 << 15)
    entry = Entry("big", "file", 0o600, 5, 1 << 30)
    chunks = [header(entry), *[chunk] * 1024, padding(1 << 30), END, END]
    with big.open("wb") as file:
        for part in compressed(chunks, "gzip"):
            file.write(part)
    known(big)
    peak = peak_memory(ours_argv(scratch / "memory", big))
    row("memory to take in a gzip layer of 1 GB", f"{peak / 1e6:.0f} MB", "(goal 250 MB)", ok=peak < 250e6)


def archives(source: Path, scratch: Path) -> tuple[Path, Path]:
    """Return the tar of `source`, plain and as gzip."""
    plain, packed = scratch / "layer.tar", scratch / "layer.tar.gz"
    subprocess.run(["tar", "c", "-f", str(plain), "-C", str(source), "."], check=True)
    with packed.open("wb") as file:
        for part in compressed(read(plain), "gzip"):
            file.write(part)
    return plain, packed


def layout(folder: Path, plain: Path, packed: Path) -> None:
    """Write an image layout of that one layer."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        media_type = f"application/vnd.oci.image.{media_type}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": [digest_of(plain)]}
    config = blob(canonical_json({"architecture": "amd64", "os": "linux", "rootfs": rootfs}), "config.v1+json")
    layers = [blob(packed.read_bytes(), "layer.v1.tar+gzip")]
    manifest = blob(canonical_json({"schemaVersion": 2, "config": config, "layers": layers}), "manifest.v1+json")
    named = manifest | {"annotations": {"org.opencontainers.image.ref.name": "x"}}
    (folder / "index.json").write_bytes(canonical_json({"schemaVersion": 2, "manifests": [named]}))
    (folder / "oci-layout").write_bytes(canonical_json({"imageLayoutVersion": "1.0.0"}))


def ours_argv(home: Path, *layers: Path) -> list[str]:
    """Return the command that takes in `layers` in a process of its own, its start included."""
    return [sys.executable, __file__, "--ingest", str(home), *map(str, layers)]


def ingest(home: Path, layers: list[Path]) -> None:
    """Take in each layer in a thread of its own."""
    store = Store(Home(home))

    def take(layer: Path) -> None:
        store.layers.ingest(known(layer), decompressed(read(layer)), layer.name)

    with ThreadPoolExecutor(len(layers)) as pool:
        list(pool.map(take, layers))


def known(layer: Path) -> DiffID:
    """Return the digest of a layer's tar, worked out once and kept beside it: whoever pulls knows it."""
    note = layer.with_name(layer.name + ".diffid")
    if not note.exists():
        digest = hashlib.sha256()
        for chunk in decompressed(read(layer)):
            digest.update(chunk)
        note.write_text(f"sha256:{digest.hexdigest()}")
    return DiffID(note.read_text())


def digest_of(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> Iterator[bytes]:
    """Yield a file in chunks, as a download on the disk is read."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def sync() -> None:
    """Let the disk settle."""
    subprocess.run(["sync"], check=True)


if __name__ == "__main__":
    main()
