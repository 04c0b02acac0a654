"""SIGKILL at the worst moments: fsck is clean, and the next one does the work."""

import subprocess
import sys
import textwrap

import pytest
from fakes.trees import make_image, make_layer

from mlbox.oci.digest import digest_of
from mlbox.store.fsck import fsck
from mlbox.store.store import Store

FILES = {"bin/x": b"1" * 5000, "lib/y": b"22", "link": "lib/y"}

CHILD = """
import os, sys
from pathlib import Path
import fakes.trees as trees
import mlbox.store.publish, mlbox.store.pieces, mlbox.store.layers, mlbox.store.images, mlbox.store.content
from mlbox.paths import Home
from mlbox.store.store import Store

FILES = {"bin/x": b"1" * 5000, "lib/y": b"22", "link": "lib/y"}

def stop(*_, **__):
    print("now", flush=True)
    sys.stdin.read()

def then_stop(function):
    def wrapper(*args, **kwargs):
        function(*args, **kwargs)
        stop()
    return wrapper

store = Store(Home(Path(sys.argv[1])))
with store.using():
"""

POINTS = {
    "in fill": """
        def fill(root):
            trees.write(root, FILES)
            stop()
        store.pieces.make(trees.key("one"), "one", fill)
    """,
    "before the piece is published": """
        mlbox.store.pieces.publish_folder = stop
        trees.make_piece(store, "one", FILES)
    """,
    "after the piece is published": """
        mlbox.store.pieces.publish_folder = then_stop(mlbox.store.pieces.publish_folder)
        trees.make_piece(store, "one", FILES)
    """,
    "while linking": """
        mlbox.store.layers._link_file = then_stop(mlbox.store.layers._link_file)
        trees.make_layer(store, "one", FILES)
    """,
    "between the layer and its row": """
        mlbox.store.layers.publish_folder = then_stop(mlbox.store.layers.publish_folder)
        trees.make_layer(store, "one", FILES)
    """,
    "while a blob is written": """
        def chunks():
            yield b"hel"
            stop()
        store.content.ingest(chunks(), "sha256:" + "0" * 64, 5)
    """,
    "before the blob is renamed": """
        mlbox.store.content.publish_file = stop
        store.content.put(b"hello")
    """,
    "between the blobs and the image": """
        layer = trees.make_layer(store, "one", FILES)
        store.content.put = then_stop(store.content.put)
        trees.make_image(store, layer)
    """,
    "inside a transaction": """
        image = trees.make_image(store, trees.make_layer(store, "one", FILES))
        with store.db.write() as execute:
            execute("INSERT INTO names VALUES ('docker.io/library/half:1', 'sha256:nowhere')")
            stop()
    """,
    "while a layer is removed": """
        image = trees.make_image(store, trees.make_layer(store, "one", FILES))
        store.images.remove(image.digest)
        mlbox.store.publish.remove_tree = stop
        store.layers.delete(image.config.rootfs.diff_ids[0])
    """,
    "half way through removing a piece": """
        trees.make_piece(store, "one", FILES)
        def half(path):
            next(path.rglob("y")).unlink()
            stop()
        mlbox.store.publish.remove_tree = half
        store.pieces.delete(trees.key("one"))
    """,
}


@pytest.mark.parametrize("point", POINTS)
def test_killed(store: Store, point: str) -> None:
    code = CHILD + textwrap.indent(textwrap.dedent(POINTS[point]), "    ")
    command = [sys.executable, "-c", code, str(store.home.root)]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"now\n"
        alive = fsck(store)
        child.kill()
    assert alive.clean
    assert alive.leftovers == ()
    assert fsck(store, deep=True).clean
    assert not list(store.home.tmp.iterdir())
    image = make_image(store, make_layer(store, "one", FILES))
    assert store.images.load(image.digest) == image
    assert store.content.put(b"hello") == digest_of(b"hello")
    assert store.images.names(image.digest) == ()
    assert fsck(store, deep=True).clean
