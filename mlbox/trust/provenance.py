"""Provenance: an in-toto statement (SLSA provenance v1) that says what an image was built from.

Nothing in it depends on a time or a machine: who builds the same lock again writes the same statement.
"""

from collections.abc import Iterator

from mlbox import __version__
from mlbox.lock.debian.distributions import distribution_of
from mlbox.lock.model import Lock
from mlbox.oci.digest import Digest, digest_of, hex_of
from mlbox.plan.model import BuildPlan
from mlbox.trust.bill import base_url, conda_url, deb_url, python_url
from mlbox.trust.statement import ResourceDescriptor, statement_about

PREDICATE = "https://slsa.dev/provenance/v1"
MEDIA_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:mlbox:build:v1"
"""A build of a lock and a project's files by the rules that the lock names."""
BUILDER = "urn:mlbox:builder"


def provenance(digest: Digest, name: str, lock: Lock, lock_bytes: bytes, plan: BuildPlan | None) -> bytes:
    """Return the statement about the manifest `digest` of the image `name` (without tag)."""
    external: dict[str, object] = {
        "lock": {"digest": {"sha256": hex_of(digest_of(lock_bytes))}, "inputs": lock.inputs},
        "arch": lock.target.arch,
        "epoch": lock.epoch,
    }
    if plan is not None:
        external["plan"] = plan.key
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": external,
            "internalParameters": {"rules": lock.rules},
            "resolvedDependencies": list(_materials(lock)),
        },
        "runDetails": {"builder": {"id": BUILDER, "version": {"mlbox": __version__}}},
    }
    return statement_about(digest, name, PREDICATE, predicate)


def _materials(lock: Lock) -> Iterator[ResourceDescriptor]:
    if lock.base.kind == "image":
        digest = lock.base.manifest or lock.base.digest
        yield ResourceDescriptor(
            uri=base_url(lock.base, lock.target.arch), digest={"sha256": hex_of(digest)}, name=lock.base.reference
        )
    for package in (*lock.packages, *lock.build_packages):
        digests = {"gitCommit": package.commit} if package.commit else {"sha256": package.sha256}
        yield ResourceDescriptor(uri=python_url(package), digest=digests, name=package.filename)
    for one in lock.conda:
        yield ResourceDescriptor(uri=conda_url(one), digest={"sha256": one.sha256}, name=one.filename)
    for deb in lock.debs:
        url = deb_url(deb, distribution_of(deb.suite).id)
        yield ResourceDescriptor(uri=url, digest={"sha256": deb.sha256}, name=deb.path.rpartition("/")[2])
