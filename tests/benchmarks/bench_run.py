"""How long `mlbox run` and the start of the program take, beside docker, runc alone and an empty Python.

    python tests/benchmarks/bench_run.py IMAGE [DOCKER_HOST]

IMAGE is in the store (MLBOX_HOME); with DOCKER_HOST the same image is loaded into that dockerd.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import interleaved, ratio, row

MLBOX = str(Path(sys.executable).with_name("mlbox"))


def main() -> None:
    """Print the table."""
    image = sys.argv[1]
    commands: dict[str, list[str]] = {
        "mlbox": [MLBOX, "run", "--rm", "--network", "host", image, "true"],
        "version": [MLBOX, "version"],
        "python": [sys.executable, "-c", "pass"],
        "images": [MLBOX, "images", "-q"],
    }
    with tempfile.TemporaryDirectory() as scratch:
        if len(sys.argv) > 2:
            os.environ["DOCKER_HOST"] = sys.argv[2]
            load_into_docker(image, Path(scratch))
            commands["docker"] = ["docker", "run", "--rm", "--network", "host", "mlbox-bench", "true"]
        times = interleaved(commands)
        if "docker" in times:
            ratio("mlbox run --rm --network host IMAGE true / docker's", times["mlbox"], times["docker"], 0.5)
        ratio("mlbox version / python -c pass", times["version"], times["python"], 3)
        crowded = with_many_images(image, commands)
        for name in ("mlbox", "images"):
            ratio(f"{' '.join(commands[name][1:])}: with 200 images / before", crowded[name], times[name], 1.2)


def load_into_docker(image: str, scratch: Path) -> None:
    """Copy the image from the store into dockerd."""
    layout, archive = scratch / "layout", scratch / "image.tar"
    subprocess.run([MLBOX, "save", image, "-o", str(layout)], check=True, capture_output=True)
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci:{layout}:{tag_of(layout)}", f"docker-archive:{archive}:mlbox-bench:latest"],
        check=True,
    )
    subprocess.run(["docker", "load", "-q", "-i", str(archive)], check=True, capture_output=True)


def tag_of(layout: Path) -> str:
    """Return the name the layout gives its image."""
    index = json.loads((layout / "index.json").read_text())
    return str(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])


def with_many_images(image: str, commands: dict[str, list[str]]) -> dict[str, float]:
    """Put 200 variants of the image into the store, measure, and remove them."""
    import msgspec

    from mlbox.oci.image import image_of
    from mlbox.oci.reference import parse_reference
    from mlbox.paths import Home
    from mlbox.store.store import Store

    store = Store(Home.default())
    original = store.images.load(store.images.resolve(image))
    names = []
    for number in range(200):
        config = msgspec.structs.replace(original.config.config, labels={"number": str(number)})
        variant = image_of(msgspec.structs.replace(original.config, config=config), original.manifest.layers)
        store.images.add(variant)
        names.append(f"bench/variant-{number}:1")
        store.images.tag(variant.digest, parse_reference(names[-1]))
    try:
        row("images in the store", str(len(store.images.list())))
        return interleaved({name: commands[name] for name in ("mlbox", "images")})
    finally:
        subprocess.run([MLBOX, "rmi", *names], check=True, capture_output=True)


if __name__ == "__main__":
    main()
