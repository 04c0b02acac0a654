"""Who vouches for the images of a bundle, as far as the bundle itself can say."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mlbox.engine.bundles.check import artifact_manifest
from mlbox.errors import TrustError
from mlbox.oci.digest import Digest
from mlbox.oci.reference import parse_reference
from mlbox.registry.bundle import BundledImage
from mlbox.registry.bundle_read import Bundle
from mlbox.trust.policy_files import is_any

if TYPE_CHECKING:
    from mlbox.trust.keys import PublicKey
    from mlbox.trust.signature import Signature


def require_signed(bundle: Bundle, keys: Sequence["PublicKey"]) -> None:
    """Raise TrustError naming the first image that none of `keys` signed.

    The bundle's documents must have been checked: then its manifests stand for the images that it says.
    """
    from mlbox.trust.signature import signers

    for image in bundle.contents.images:
        if not any(signers(signatures(bundle, subject), subject, keys) for subject in _subjects(bundle, image)):
            names = " or ".join(key.name for key in keys)
            raise TrustError(
                f"{bundle.name}: image {_called(image)} is not signed by {names}",
                hint="'mlbox sign IMAGE --key FILE' where the bundle is made, and bundle again",
            )


def admit(bundle: Bundle) -> None:
    """Raise TrustError when the policy of this machine does not let the images of the bundle in.

    A bundle may claim any origin: see Policy.check_local.
    """
    if not is_any(os.environ):
        return
    from mlbox.trust.policy import Claim, load

    rules = load()
    for image in bundle.contents.images:
        claims = [Claim(subject, partial(signatures, bundle, subject)) for subject in _subjects(bundle, image)]
        rules.check_local(_origins(bundle, image), claims)


def signatures(bundle: Bundle, subject: Digest) -> Iterator["Signature"]:
    """Yield the signatures of a manifest that are in the bundle; none of them has been checked."""
    from mlbox.engine.trust.signatures import signatures_in

    for referrer in bundle.contents.referrers:
        if referrer.subject == subject:
            yield from signatures_in(artifact_manifest(bundle, referrer), lambda blob: bundle.document(blob.digest))


def _subjects(bundle: Bundle, image: BundledImage) -> list[Digest]:
    there = (remote.manifest.digest for remote in bundle.contents.remotes if remote.image == image.digest)
    return [image.digest, *there]


def _origins(bundle: Bundle, image: BundledImage) -> list[str]:
    there = (remote.repository for remote in bundle.contents.remotes if remote.image == image.digest)
    return list(dict.fromkeys((*there, *(parse_reference(name).name for name in image.names))))


def _called(image: BundledImage) -> str:
    return parse_reference(image.names[0]).familiar if image.names else image.digest
