"""What the policy of this machine says about pulling and running an image."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mlbox.codec import decode_json
from mlbox.errors import MlboxError, RegistryError, TrustError
from mlbox.oci.digest import Digest
from mlbox.oci.image import INDEX, Descriptor, Image, ImageIndex
from mlbox.oci.reference import Reference, parse_reference
from mlbox.paths import Home
from mlbox.runtime.record import Record
from mlbox.store.store import Store
from mlbox.trust.policy_files import is_any

if TYPE_CHECKING:
    from mlbox.registry.archive import Arrival
    from mlbox.registry.client import Registry
    from mlbox.trust.policy import Claim
    from mlbox.trust.signature import Signature

_LOCAL = ""
"""Stands for the repository of an image that was built or loaded here."""


def admit_pull(store: Store, registry: "Registry", reference: Reference, subjects: Sequence[Descriptor]) -> None:
    """Raise TrustError when the policy forbids to pull `reference`; `subjects` are its manifest and its index.

    Signatures are fetched only when a rule asks for them, and are kept then, so that the image can be run.
    """
    if not is_any(os.environ):
        return
    from mlbox.trust import policy

    claims = [policy.Claim(one.digest, lambda one=one: _ask(store, registry, reference, one)) for one in subjects]  # type: ignore[misc]
    policy.load().check(reference.name, claims)


def admit_locked(store: Store, registry: "Registry", reference: Reference, manifest: Descriptor, index: Digest) -> None:
    """Raise TrustError when the policy forbids to pull a `manifest` that a lock names, with the `index` it was in."""
    if not is_any(os.environ):
        return
    from mlbox.oci.artifact import subject_of

    subjects = [manifest]
    if index != manifest.digest:
        data = registry.manifest(reference.repository, index).data
        document = decode_json(data, ImageIndex, what=f"index {index}", error=RegistryError)
        if any(child.digest == manifest.digest for child in document.manifests):
            subjects.append(subject_of(index, data, INDEX))
    admit_pull(store, registry, reference, subjects)


def admit_kept(store: Store, name: str, digests: Sequence[Digest]) -> None:
    """Raise TrustError when the policy forbids to stand on an image that is here already; `digests` are its own.

    Of an image of which only the layers are left it is asked as of one that is pulled.
    """
    if not is_any(os.environ):
        return
    known = next((image for digest in digests if (image := store.remotes.image_of(digest))), None)
    if known is not None:
        admit_run(store, name, store.images.load(known))
        return
    from mlbox.trust import policy

    policy.load().check(parse_reference(name).name, [_claim(store, digest) for digest in digests])


def admit_load(store: Store, arrival: "Arrival") -> None:
    """Raise TrustError when the policy forbids to load an image from an archive."""
    if not is_any(os.environ):
        return
    from mlbox.trust.policy import Claim, load

    claims = [Claim(one, partial(_brought, store, arrival.artifacts, one)) for one in arrival.digests]
    load().check_local([name.name for name in arrival.names], claims)


def _brought(store: Store, artifacts: Sequence[bytes], subject: Digest) -> Iterator["Signature"]:
    """Yield the signatures of a manifest among `artifacts`, whose documents are in the store."""
    from mlbox.engine.trust.signatures import signatures_in
    from mlbox.oci.artifact import ArtifactManifest

    for data in artifacts:
        artifact = decode_json(data, ArtifactManifest, what="artifact", error=TrustError)
        if artifact.subject is not None and artifact.subject.digest == subject:
            yield from signatures_in(artifact, store.referrers.blob)


def admit_run(store: Store, name: str, image: Image) -> None:
    """Raise TrustError when the policy forbids to run `image`, called `name`."""
    if is_any(os.environ):
        _standing(store, name, image).check()


def admit_start(home: Home, record: Record) -> Callable[[], None]:
    """Raise TrustError when the policy no longer lets the image of a container run.

    Returns what asks again before a restart. That needs no store: it is asked by a process that was forked, in which
    SQLite's files cannot be used.
    """
    restarts = record.options.restart.policy != "no"
    if not (restarts or is_any(os.environ)):
        return lambda: None
    with closing(Store(home)) as store:
        digest = Digest(record.image_digest)
        if restarts and not is_any(os.environ) and not store.images.has(digest):
            return partial(_unknown, record.image)
        standing = _standing(store, record.image, store.images.get(digest))
        standing.check()
        return standing.apart().check if restarts else lambda: None


def _unknown(name: str) -> None:
    if is_any(os.environ):
        raise TrustError(f"image {name} is gone, so its origin is too", hint="pull or build it again")


class _Standing(NamedTuple):
    """What a policy asks about an image.

    An image is its content, so one place that it came from and that the policy allows is enough.
    """

    origins: tuple[str, ...]
    claimed: tuple[str, ...]
    """Where it may come from, as files and names say."""
    claims: tuple[tuple[str, "Claim"], ...]
    """By the repository that the manifest is in."""

    def check(self) -> None:
        """Raise TrustError when the policy, as it is now, refuses all of them."""
        if not is_any(os.environ):
            return
        from mlbox.trust import policy

        rules = policy.load()
        refused: list[TrustError] = []
        for origin in self.origins:
            # The manifest that lies there first, for that is the one to speak of.
            claims = [claim for _, claim in sorted(self.claims, key=lambda one: one[0] != origin)]
            try:
                if origin == _LOCAL:
                    rules.check_local(self.claimed, claims)
                else:
                    rules.check(origin, claims)
            except TrustError as problem:
                refused.append(problem)
            else:
                return
        raise refused[0]

    def apart(self) -> "_Standing":
        """Return the same, with all signatures read."""
        claims = [(name, claim._replace(signatures=tuple(claim.signatures()).__iter__)) for name, claim in self.claims]
        return self._replace(claims=tuple(claims))


def _standing(store: Store, name: str, image: Image) -> _Standing:
    from mlbox.engine.trust.signatures import places_of

    return _Standing(
        origins=tuple(_origins(store, image, name)),
        claimed=tuple(_claimed(store, image)),
        claims=tuple((place.repository, _claim(store, place.subject.digest)) for place in places_of(store, image)),
    )


def _claim(store: Store, digest: Digest) -> "Claim":
    from mlbox.engine.trust.signatures import kept_signatures
    from mlbox.trust.policy import Claim

    return Claim(digest, partial(kept_signatures, store, digest))


def _ask(store: Store, registry: "Registry", reference: Reference, subject: Descriptor) -> Iterator["Signature"]:
    from mlbox.engine.trust.signatures import keeping, remote_signatures

    yield from keeping(store, subject, remote_signatures(registry, reference.repository, subject.digest))


def _origins(store: Store, image: Image, name: str) -> list[str]:
    """Return where the image came from; the place that `name` says first, for it is the one to speak of."""
    remotes = store.remotes.of(image.digest)
    found = list(dict.fromkeys(remote.repository for remote in remotes if not remote.claimed))
    if any(remote.claimed for remote in remotes) or not found or store.images.is_built_here(image.digest):
        found.insert(0, _LOCAL)
    try:
        meant = parse_reference(name).name
    except MlboxError:
        return found
    return sorted(found, key=lambda origin: origin != meant)


def _claimed(store: Store, image: Image) -> list[str]:
    """Return where the image may come from, as files and names say."""
    found = (remote.repository for remote in store.remotes.of(image.digest) if remote.claimed)
    return list(dict.fromkeys((*found, *(name.name for name in store.images.names(image.digest)))))
