"""Artifacts: documents about an image that refer to it (image-spec v1.1, "Guidelines for Artifact Usage").

A lock, a plan, a software bill of materials or a signature is never part of the image, whose digest would depend on
it; it is a manifest of its own whose `subject` is the image.
"""

from typing import Literal

import msgspec

from mlbox.codec import canonical_json
from mlbox.oci.digest import Digest, digest_of
from mlbox.oci.image import MANIFEST, Descriptor

LOCK_TYPE = "application/vnd.mlbox.lock.v1+toml"
PLAN_TYPE = "application/vnd.mlbox.plan.v1+json"
GPU_TYPE = "application/vnd.mlbox.gpu.v1+json"
THIN_TYPE = "application/vnd.mlbox.thin.v1+json"

EMPTY_BYTES = b"{}"
EMPTY = Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=digest_of(EMPTY_BYTES), size=len(EMPTY_BYTES))
"""The configuration of what has none."""


class ArtifactManifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A manifest whose layers are documents of any kind; it may be about a `subject`."""

    schema_version: Literal[2]
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}

    @property
    def kind(self) -> str:
        """What the artifact is: its type, else its configuration's, as the distribution-spec has it."""
        return self.artifact_type or self.config.media_type


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """One document of an artifact."""

    media_type: str
    data: bytes
    annotations: dict[str, str] = {}

    @property
    def descriptor(self) -> Descriptor:
        """How a manifest refers to it."""
        return Descriptor(
            media_type=self.media_type,
            digest=digest_of(self.data),
            size=len(self.data),
            annotations=self.annotations,
        )


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """Documents about an image, before it is said which manifest they are about."""

    artifact_type: str
    blobs: tuple[Blob, ...]
    annotations: dict[str, str] = {}


def artifact_of(media_type: str, data: bytes) -> Artifact:
    """Return the artifact that is one document."""
    return Artifact(artifact_type=media_type, blobs=(Blob(media_type=media_type, data=data),))


def manifest_of(artifact: Artifact, subject: Descriptor) -> bytes:
    """Return the manifest that says `artifact` is about `subject`: canonical JSON, so equal ones are equal bytes."""
    plain = Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size)
    return canonical_json(
        ArtifactManifest(
            schema_version=2,
            media_type=MANIFEST,
            artifact_type=artifact.artifact_type,
            config=EMPTY,
            layers=tuple(blob.descriptor for blob in artifact.blobs),
            subject=plain,
            annotations=artifact.annotations,
        )
    )


def subject_of(digest: Digest, manifest_bytes: bytes, media_type: str = MANIFEST) -> Descriptor:
    """Return how an artifact refers to the manifest it is about."""
    return Descriptor(media_type=media_type, digest=digest, size=len(manifest_bytes))
