"""The list of what a store has: text, sorted, and nothing to trust."""

from pathlib import Path

import pytest
from fakes.trees import make_layer
from hypothesis import given
from hypothesis import strategies as st

from mlbox.errors import ArchiveError
from mlbox.oci.digest import DiffID
from mlbox.paths import Home
from mlbox.registry import bundle_have
from mlbox.registry.bundle_have import NOTHING, Have, have_of, parse_have, read_have, render_have
from mlbox.store.store import Store

hexes = st.frozensets(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=5)


@given(hexes, hexes, hexes)
def test_what_is_written_is_read(layers: frozenset[str], artifacts: frozenset[str], pieces: frozenset[str]) -> None:
    """Every list comes back, and its lines are sorted."""
    have = Have(layers=frozenset(DiffID(f"sha256:{layer}") for layer in layers), artifacts=artifacts, pieces=pieces)
    text = render_have(have)
    assert parse_have(text.encode(), "x") == have
    assert text.splitlines()[1:] == sorted(text.splitlines()[1:])


def test_the_list_of_a_store(home: Home, tmp_path: Path) -> None:
    """It has hashes and no path of the machine."""
    store = Store(home)
    assert render_have(have_of(store)) == "mlbox-have 1\n"
    layer = make_layer(store, "numpy", {"x": b"1"})
    (tmp_path / "wheel").write_bytes(b"wheel")
    sha256 = store.artifacts.add_file(tmp_path / "wheel")
    have = have_of(store)
    store.close()
    assert (have.layers, have.artifacts) == (frozenset({layer.diff_id}), frozenset({sha256}))
    assert len(have.pieces) == 1
    assert str(tmp_path) not in render_have(have)


def test_lists_add_up() -> None:
    """What either has."""
    one, two = Have(artifacts=frozenset("a")), Have(pieces=frozenset("b"))
    assert one | two | NOTHING == Have(artifacts=frozenset("a"), pieces=frozenset("b"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no list of a store"),
        (b"\xff\xfe\0", "no list of a store"),
        (b"mlbox-have 2\n", "newer mlbox"),
        (b"mlbox-have 1\nlayer x\n", "x:2: not an item"),
        (b"mlbox-have 1\nlayer " + b"0" * 63 + b"\n", "not an item"),
        (b"mlbox-have 1\nlayer ../" + b"0" * 64 + b"\n", "not an item"),
        (b"mlbox-have 1\nfile " + b"0" * 64 + b"\n", "not an item"),
        (b"mlbox-have 1\nlayer " + "\u0660".encode() * 64, "not an item"),
    ],
)
def test_what_is_no_list(data: bytes, said: str) -> None:
    """The line is named."""
    with pytest.raises(ArchiveError, match=said) as caught:
        parse_have(data, "x")
    assert "mlbox bundle have" in (caught.value.hint or "")


@given(st.binary(max_size=300))
def test_anything(data: bytes) -> None:
    """Whatever it is, it is read or refused."""
    for text in (data, b"mlbox-have 1\n" + data):
        try:
            parse_have(text, "x")
        except ArchiveError:
            continue


def test_a_list_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so much of it is read."""
    monkeypatch.setattr(bundle_have, "LIMIT", 100)
    (tmp_path / "list").write_bytes(b"mlbox-have 1\n" + b"x" * 1000)
    with pytest.raises(ArchiveError, match="larger than 100 bytes"):
        read_have(tmp_path / "list")
    with pytest.raises(ArchiveError, match="cannot read"):
        read_have(tmp_path)
