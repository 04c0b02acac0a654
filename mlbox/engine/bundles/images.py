"""Which images a bundle is to hold, and what is known of each."""

from collections.abc import Sequence
from typing import NamedTuple

from mlbox.build.rebuild import decode_plan
from mlbox.errors import MlboxError, UsageError
from mlbox.events import Listener
from mlbox.oci.digest import Digest
from mlbox.oci.image import Image
from mlbox.oci.reference import parse_reference
from mlbox.plan.model import BuildPlan
from mlbox.store.store import Store


class Chosen(NamedTuple):
    image: Image
    names: tuple[str, ...]
    plan: BuildPlan | None
    below: bool = False
    """Whether it is there because another image stands on it."""


def chosen(store: Store, names: Sequence[str]) -> list[Chosen]:
    """Return the images that `names` mean, each once, with the names they were asked for by."""
    if not names:
        raise UsageError("no image is named", hint="mlbox bundle IMAGE -o FILE; 'mlbox images' lists them")
    asked: dict[Digest, set[str]] = {}
    for name in names:
        digest = store.images.resolve(name)
        kept = {str(reference) for reference in store.images.names(digest)}
        given = "" if name.startswith("sha256:") else str(parse_reference(name))
        asked.setdefault(digest, set()).update({given} if given in kept else kept)
    found = []
    for digest, kept in sorted(asked.items()):
        image = store.images.load(digest)
        plan = read_plan(store.referrers.plan_of(digest))
        found.append(Chosen(image, tuple(sorted(kept)), plan))
    return found


def attach_bills(store: Store, images: Sequence[Chosen], listener: Listener) -> None:
    from mlbox.engine.trust.materials import attachments, name_of
    from mlbox.oci.artifact import subject_of

    for named in images:
        listener.step(f"write the bill of materials of {called(named)}")
        image = named.image
        subject = subject_of(image.digest, image.manifest_bytes)
        for artifact in attachments(store, image, image.digest, name_of(store, image), sbom=True):
            store.referrers.add(artifact, subject)


def with_bases(store: Store, images: Sequence[Chosen], listener: Listener) -> list[Chosen]:
    """Return `images` and those of registries that they stand on: building again needs their configuration."""
    found = {named.image.digest: named for named in images}
    for named in images:
        base = named.plan.base if named.plan else None
        if base is None:
            continue
        digest = store.remotes.image_of(base.manifest)
        image = store.images.load(digest) if digest else None
        if image is None or image.manifest.config.digest != base.config:
            listener.note(
                f"base {base.reference} is not in the store as an image: {called(named)} cannot be built again"
            )
            continue
        repository = parse_reference(base.reference).name
        names = [str(name) for name in store.images.names(image.digest) if name.name == repository]
        found.setdefault(image.digest, Chosen(image, tuple(names), None, below=True))
    return [named for _, named in sorted(found.items())]


def called(named: Chosen) -> str:
    return parse_reference(named.names[0]).familiar if named.names else named.image.digest


def read_plan(data: bytes | None) -> BuildPlan | None:
    """Return the plan that came with an image, None when this mlbox cannot read it."""
    if data is None:
        return None
    try:
        return decode_plan(data)
    except MlboxError:
        return None
