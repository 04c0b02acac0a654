"""Images of one project for several accelerators, by name."""

from pathlib import Path

import pytest

from mlbox.engine.variants import image_for
from mlbox.errors import UsageError
from mlbox.paths import Home
from mlbox.store.store import Store


def test_the_image_for_an_accelerator(tmp_path: Path) -> None:
    """Has its name at the tag's end, here or in the registry that it is pulled from."""
    assert image_for(Store(Home(tmp_path)), "me/bert:1", "cu126") == ("docker.io/me/bert:1-cu126", None)


@pytest.mark.parametrize("name", ["cu12", "CU126", "gpu", "cu126 ", "../x"])
def test_what_is_no_accelerator_is_not_looked_for(tmp_path: Path, name: str) -> None:
    """A slip of the finger is said, and asks no registry."""
    with pytest.raises(UsageError, match="unknown accelerator"):
        image_for(Store(Home(tmp_path)), "me/bert:1", name)
