"""What fuzzing found stays mended, and every target understands what it starts from."""

from pathlib import Path

import pytest
from fuzz.targets import READERS
from fuzz.watch import check

FOUND = Path(__file__).parents[1] / "fuzz" / "found"


@pytest.mark.parametrize("name", READERS)
def test_seeds(name: str, tmp_path: Path) -> None:
    """They are read without an error, or the fuzzer would never see what lies behind the first check."""
    for number, seed in enumerate(READERS[name].seeds):
        room = tmp_path / str(number)
        room.mkdir()
        check(name, seed)


@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_found(path: Path) -> None:
    """No longer an error that is none of mlbox's own, nor a write outside of the folder."""
    check(path.parent.name, path.read_bytes())
