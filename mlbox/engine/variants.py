"""Images of one project for several accelerators: NAME:TAG-cpu, NAME:TAG-cu126."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mlbox.errors import NotFoundError, UsageError
from mlbox.events import Listener
from mlbox.oci.reference import Reference, parse_reference
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.engine.building import Workshop
    from mlbox.gpu.accelerator import Choice
    from mlbox.gpu.model import Version
    from mlbox.lock.model import Lock
    from mlbox.oci.image import Image


class Variant(NamedTuple):
    """The image for one accelerator, and its names."""

    image: "Image"
    names: tuple[Reference, ...]


def tagged(reference: Reference, accelerator: str) -> Reference:
    """Return the name of the image for one accelerator: 'team/name:1' becomes 'team/name:1-cu126'."""
    if reference.digest:
        raise UsageError(f"{reference.familiar} is one image, whatever the accelerator", hint="name it by its tag")
    return parse_reference(str(msgspec.structs.replace(reference, tag=f"{reference.tag}-{accelerator}")))


def build_all(workshop: "Workshop", lock: "Lock", names: Sequence[str], *, locked: bool) -> list[Variant]:
    """Build the image for each accelerator of `lock` and give them `names` with the accelerator at the tag's end."""
    from mlbox.lock.accelerators import for_accelerator

    references = [parse_reference(name) for name in names] or [workshop.default_name]
    while True:
        built = []
        for accelerator in lock.accelerators or (lock.target.accelerator,):
            mine = tuple(tagged(reference, accelerator) for reference in references)
            view = for_accelerator(workshop.previous_lock or lock, accelerator)
            built.append(Variant(workshop.build(view, [str(name) for name in mine], locked=locked), mine))
        if workshop.previous_lock in (None, lock):
            return built
        lock = workshop.previous_lock  # a later one lacked a system package, which the earlier ones have then too


def meant(
    store: Store, text: str, listener: Listener, *, accelerator: str = "", driver: "Version | None" = None
) -> str:
    """Return the name of the image that `text` means, as `image_for` finds it; the listener is told of a choice."""
    name, choice = image_for(store, text, accelerator, driver=driver)
    if choice:
        name = parse_reference(name).familiar
        listener.note(f"accelerator {choice.name}: {choice.reason}; the image is {name}")
    return name


def image_for(
    store: Store, text: str, accelerator: str, *, driver: "Version | None" = None
) -> "tuple[str, Choice | None]":
    """Return the image that `text` means for an accelerator, and why when the host was asked.

    Without an accelerator a name that the store has is what it is; else its images for accelerators are looked at.
    The host is this one, or one with that NVIDIA `driver`. Raises UsageError when none of them suits it.
    """
    if accelerator:
        _check(accelerator)
        return str(tagged(parse_reference(text), accelerator)), None
    try:
        store.images.resolve(text)
    except (NotFoundError, UsageError):
        if known := _accelerators(store, text):
            from mlbox.gpu.accelerator import choose

            try:
                choice = choose(known, driver=driver)
            except UsageError as problem:
                names = (tagged(parse_reference(text), one).familiar for one in known)
                problem.hint = f"name one: {', '.join(names)}"
                raise
            return str(tagged(parse_reference(text), choice.name)), choice
    return text, None


def _check(name: str) -> None:
    """Raise UsageError when nothing can be built for an accelerator of that name."""
    from mlbox.project.model import ACCELERATOR

    if not ACCELERATOR.fullmatch(name):
        raise UsageError(f"unknown accelerator {name[:60]!r}", hint="cpu, xpu, or a version like cu126 or rocm6.4")


def _accelerators(store: Store, text: str) -> list[str]:
    try:
        wanted = parse_reference(text)
    except UsageError:
        return []
    start = f"{wanted.name}:{wanted.tag}-"
    names = [str(name) for digest in store.images.digests() for name in store.images.names(digest)]
    found = [name.removeprefix(start) for name in names if wanted.tag and name.startswith(start)]
    if not found:
        return []
    from mlbox.project.model import ACCELERATOR

    return sorted(filter(ACCELERATOR.fullmatch, found))
