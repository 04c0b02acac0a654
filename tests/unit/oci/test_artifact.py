import json

import msgspec

from mlbox.oci.artifact import EMPTY, LOCK_TYPE, ArtifactManifest, artifact_of, manifest_of, subject_of
from mlbox.oci.digest import digest_of

IMAGE = b'{"an": "image"}'


def test_an_artifact_names_its_type_its_subject_and_its_documents() -> None:
    data = manifest_of(artifact_of(LOCK_TYPE, b"lock"), subject_of(digest_of(IMAGE), IMAGE))
    assert json.loads(data) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": LOCK_TYPE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2},
        "layers": [{"mediaType": LOCK_TYPE, "digest": digest_of(b"lock"), "size": 4}],
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest_of(IMAGE),
            "size": len(IMAGE),
        },
    }


def test_an_older_artifact_is_what_its_configuration_is() -> None:
    old = ArtifactManifest(schema_version=2, config=msgspec.structs.replace(EMPTY, media_type="text/x"), layers=())
    assert old.kind == "text/x"
    assert msgspec.structs.replace(old, artifact_type="text/y").kind == "text/y"
