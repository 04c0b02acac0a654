"""A bill of materials as CycloneDX 1.6 JSON."""

import json
import uuid
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlbox import __version__
from mlbox.oci.digest import hex_of
from mlbox.oci.layer import EPOCH
from mlbox.trust.bill import Bill, Component
from mlbox.trust.inventory import spdx_expression

if TYPE_CHECKING:
    from cyclonedx.model import HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component as Part
    from cyclonedx.model.license import License

MEDIA_TYPE = "application/vnd.cyclonedx+json"
PREDICATE = "https://cyclonedx.org/bom"
"""in-toto's predicate type for it."""


def cyclonedx(bill: Bill) -> bytes:
    """Return `bill` as CycloneDX; equal bills make equal bytes."""
    from cyclonedx.output.json import JsonV1Dot6

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an image of no packages depends on nothing, and that is right
        text = JsonV1Dot6(_document(bill)).output_as_string()
    return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def identity_of(bill: Bill) -> uuid.UUID:
    """Return the serial number of the bill, which follows from what it is about."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{bill.purl} {bill.digest}")


def time_of(bill: Bill) -> datetime:
    """Return the image's own time; images of the year 1 (or of no time) are from 1980."""
    try:
        time = datetime.fromisoformat(bill.created).astimezone(UTC)
    except (ValueError, OverflowError):
        time = datetime.fromtimestamp(0, UTC)
    return time.replace(microsecond=0) if time.year >= 1980 else datetime.fromtimestamp(EPOCH, UTC)


def _document(bill: Bill) -> "Bom":
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component as Part
    from cyclonedx.model.component import ComponentType
    from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
    from packageurl import PackageURL

    tool = Part(type=ComponentType.APPLICATION, name="mlbox", version=__version__)
    root = Part(
        type=ComponentType.APPLICATION if bill.of_lock else ComponentType.CONTAINER,
        name=bill.name,
        version=bill.digest,
        bom_ref=bill.purl,
        purl=PackageURL.from_string(bill.purl),
        hashes=[_sha256(hex_of(bill.digest))],
        properties=[Property(name="mlbox:unread", value=folder) for folder in bill.unread],
    )
    metadata = BomMetaData(component=root, timestamp=time_of(bill))
    metadata.tools.components.add(tool)
    if bill.of_lock:
        metadata.lifecycles.add(PredefinedLifecycle(phase=LifecyclePhase.PRE_BUILD))
    parts = {one.purl: _part(one) for one in bill.components}
    bom = Bom(serial_number=identity_of(bill), version=1, metadata=metadata, components=parts.values())
    bom.register_dependency(root, [parts[purl] for purl in bill.top])
    for one in bill.components:
        bom.register_dependency(parts[one.purl], [parts[purl] for purl in one.requires])
    return bom


def _part(one: Component) -> "Part":
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
    from cyclonedx.model.component import Component as Part
    from cyclonedx.model.component import ComponentType
    from packageurl import PackageURL

    source = [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(one.vcs))] if one.vcs else []
    return Part(
        type=ComponentType.CONTAINER if one.kind == "image" else ComponentType.LIBRARY,
        name=one.name,
        version=one.version,
        bom_ref=one.purl,
        purl=PackageURL.from_string(one.purl),
        hashes=[_sha256(one.sha256)] if one.sha256 else [],
        licenses=_licenses(one),
        external_references=source,
        properties=[Property(name="mlbox:file", value=one.filename)] if one.filename else [],
    )


def _licenses(one: Component) -> "list[License]":
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

    if len(one.licenses) == 1 and spdx_expression(one.licenses[0]):
        return [LicenseExpression(one.licenses[0])]
    return [DisjunctiveLicense(name=name) for name in one.licenses]


def _sha256(value: str) -> "HashType":
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=value)
