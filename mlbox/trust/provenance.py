"""Provenance: an in-toto statement (SLSA provenance v1) that says what an image was built from.

Nothing in it depends on a time or a machine: who builds the same lock again writes the same statement. Of packages that
were built from source it says which wheel that was and where it came from: a second build may make another one.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from mlbox import __version__
from mlbox.lock.debian.distributions import distribution_of
from mlbox.lock.model import Lock, Package
from mlbox.oci.digest import Digest, digest_of, hex_of
from mlbox.plan.model import BuildPlan, RunPiece
from mlbox.plan.run import run_piece
from mlbox.store.built import BuiltWheel
from mlbox.trust.bill import base_url, conda_url, deb_url, python_url
from mlbox.trust.statement import ResourceDescriptor, statement_about

PREDICATE = "https://slsa.dev/provenance/v1"
MEDIA_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:mlbox:build:v1"
"""A build of a lock and a project's files by the rules that the lock names."""
BUILDER = "urn:mlbox:builder"


def provenance(
    digest: Digest,
    name: str,
    lock: Lock,
    lock_bytes: bytes,
    plan: BuildPlan | None,
    built: Mapping[str, BuiltWheel] = MappingProxyType({}),
) -> bytes:
    """Return the statement about the manifest `digest` of the image `name` (without tag).

    `built` are the wheels that were built from source, by package.
    """
    external: dict[str, object] = {
        "lock": {"digest": {"sha256": hex_of(digest_of(lock_bytes))}, "inputs": lock.inputs},
        "arch": lock.target.arch,
        "epoch": lock.epoch,
    }
    if plan is not None:
        external["plan"] = plan.key
        if commands := [_command(piece) for layer in plan.layers if (piece := run_piece(layer))]:
            external["run"] = commands
    made = [_wheel(package, built[package.name]) for package in lock.packages if package.name in built]
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": external,
            "internalParameters": {"rules": lock.rules},
            "resolvedDependencies": list(_materials(lock)),
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"mlbox": __version__}},
            **({"byproducts": made} if made else {}),
        },
    }
    return statement_about(digest, name, PREDICATE, predicate)


def _command(piece: RunPiece) -> dict[str, object]:
    """Return what is known of a command whose output is part of the image: it follows from no inputs."""
    return {
        "command": piece.command,
        "network": piece.network,
        "gpu": piece.gpu,
        "inputs": {file.path: file.sha256 for file in piece.inputs if file.sha256},
        "secrets": piece.secrets,
        "reproducible": False,
    }


def _wheel(package: Package, wheel: BuiltWheel) -> ResourceDescriptor:
    """Return a wheel that was built from source: how, and by whom when it was pulled."""
    said: dict[str, object] = {
        "package": package.name,
        "compiled": list(package.compiled),
        "key": wheel.key,
        "origin": wheel.origin,
    }
    if package.build_gpu or package.build_network:
        said["portable"] = False
    notes = {key: value for key, value in said.items() if value not in ("", [])}
    return ResourceDescriptor(name=wheel.filename, digest={"sha256": wheel.sha256}, annotations=notes)


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
    if lock.build_base is not None:
        base = lock.build_base
        yield ResourceDescriptor(
            uri=base_url(base, lock.target.arch),
            digest={"sha256": hex_of(base.manifest or base.digest)},
            name=base.reference,
        )
    for deb in (*lock.debs, *lock.build_debs):
        url = deb_url(deb, distribution_of(deb.suite).id)
        yield ResourceDescriptor(uri=url, digest={"sha256": deb.sha256}, name=deb.path.rpartition("/")[2])
