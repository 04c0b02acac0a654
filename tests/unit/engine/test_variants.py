"""Images of one project for several accelerators, by name."""

from pathlib import Path

import pytest
from fakes.trees import make_image, make_layer

from mlbox.engine.variants import image_for, meant
from mlbox.errors import UsageError
from mlbox.gpu.model import parse_version
from mlbox.oci.reference import parse_reference
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


class Told:
    """A listener that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, what: str) -> None: ...

    def expect(self, what: str, total: int) -> None: ...

    def advance(self, what: str, amount: int) -> None: ...


@pytest.fixture
def variants(tmp_path: Path) -> Store:
    """A store with the image of one project for two CUDAs."""
    store = Store(Home(tmp_path))
    image = make_image(store, make_layer(store, "one", {"a": b"a"}))
    store.images.add(image)
    for accelerator in ("cu126", "cu130"):
        store.images.tag(image.digest, parse_reference(f"me/bert:1-{accelerator}"))
    return store


def test_a_driver_chooses_among_images_and_it_is_said(variants: Store) -> None:
    """Once, with the name of the image; what is called by its whole name is not chosen."""
    told = Told()
    assert meant(variants, "me/bert:1", told, driver=parse_version("560.35")) == "me/bert:1-cu126"
    assert told.notes == ["accelerator cu126: driver 560.35 runs CUDA 12.6; the image is me/bert:1-cu126"]
    assert meant(variants, "me/bert:1-cu130", told) == "me/bert:1-cu130"
    assert len(told.notes) == 1


def test_images_that_suit_no_host_like_this_are_named(variants: Store) -> None:
    """No command but 'run' has an option for it, and all take a name."""
    with pytest.raises(UsageError) as raised:
        meant(variants, "me/bert:1", Told(), driver=parse_version("390.1"))
    assert raised.value.hint == "name one: me/bert:1-cu126, me/bert:1-cu130"
