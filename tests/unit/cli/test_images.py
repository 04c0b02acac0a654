"""Commands on images that others made."""

import json
from pathlib import Path

import pytest
from fakes.trees import make_layer

from mlbox.cli.main import run
from mlbox.cli.render import print_table
from mlbox.oci.image import History, ImageConfig, RootFS, image_of
from mlbox.oci.reference import parse_reference
from mlbox.paths import Home
from mlbox.store.store import Store


@pytest.mark.parametrize("entries", [0, 1, 2, 5])
def test_history_shows_every_layer(
    entries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of an image with no history, with too little or too much of it; what makes no layer is left out."""
    monkeypatch.setenv("MLBOX_HOME", str(tmp_path))
    store = Store(Home(tmp_path))
    layers = [make_layer(store, name, {name: b"x"}) for name in ("one", "two")]
    history = [History(created_by="ENV A=1", empty_layer=True)]
    history += [History(created_by=f"RUN {number}") for number in range(entries)]
    config = ImageConfig(
        architecture="amd64",
        os="linux",
        history=tuple(history),
        rootfs=RootFS(diff_ids=tuple(layer.diff_id for layer in layers)),
    )
    image = image_of(config, tuple(layer.descriptor for layer in layers))
    store.images.add(image)
    store.images.tag(image.digest, parse_reference("x"))
    store.close()
    assert run(["history", "x", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["diff_id"] for row in found] == [layer.diff_id for layer in layers]
    assert [row["created_by"] for row in found] == [f"RUN {i}" if i < entries else "" for i in range(2)]
    assert run(["history", "x"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_tables_escape_what_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """A stranger's command line must not write over other lines, or say that it is another image."""
    print_table(("A", "B"), [("x\x1b[2J\nnext\udc80\u202e", "é 日本")])
    assert capsys.readouterr().out.splitlines()[1] == "x\\x1b[2J\\nnext\\udc80\\u202e   é 日本"
