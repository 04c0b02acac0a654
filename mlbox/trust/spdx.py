"""A bill of materials as SPDX 2.3 JSON. The document is simple enough to be written without a library."""

import re

import msgspec

from mlbox import __version__
from mlbox.codec import canonical_json, key_of
from mlbox.oci.digest import hex_of
from mlbox.trust.bill import Bill, Component
from mlbox.trust.cyclonedx import identity_of, time_of
from mlbox.trust.inventory import spdx_expression

MEDIA_TYPE = "application/spdx+json"
PREDICATE = "https://spdx.dev/Document"
"""in-toto's predicate type for it."""

_NONE = "NOASSERTION"
_LOCATION = re.compile(r"git\+(?:https?|ssh|git)://[A-Za-z0-9._:/~-]+@[0-9a-f]{40,64}(?:#[A-Za-z0-9._/-]+)?")
"""Version control locations that every reader of the format takes (SPDX 2.3, 7.7)."""


class _Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of what follows; fields as in the SPDX 2.3 schema, and the defaults are not written."""


class _Checksum(_Document, frozen=True, kw_only=True):
    algorithm: str
    checksum_value: str


class _ExternalRef(_Document, frozen=True, kw_only=True):
    reference_category: str
    reference_type: str
    reference_locator: str


class _Package(_Document, frozen=True, kw_only=True):
    spdx_id: str = msgspec.field(name="SPDXID")
    name: str
    version_info: str
    download_location: str
    license_concluded: str
    license_declared: str
    copyright_text: str
    files_analyzed: bool
    checksums: tuple[_Checksum, ...] = ()
    external_refs: tuple[_ExternalRef, ...] = ()
    license_comments: str = ""
    comment: str = ""
    package_file_name: str = ""
    primary_package_purpose: str = ""


class _Relationship(_Document, frozen=True, kw_only=True):
    spdx_element_id: str
    relationship_type: str
    related_spdx_element: str


def spdx(bill: Bill) -> bytes:
    """Return `bill` as SPDX; equal bills make equal bytes."""
    ids = {one.purl: _id(one.kind, one.purl) for one in bill.components}
    root = _id("lock" if bill.of_lock else "image", bill.purl)
    document = {
        "SPDXID": "SPDXRef-DOCUMENT",
        "creationInfo": {
            "created": time_of(bill).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: mlbox-{__version__}"],
        },
        "dataLicense": "CC0-1.0",
        "documentNamespace": f"urn:uuid:{identity_of(bill)}",
        "name": bill.name,
        "packages": [_root(bill, root), *(_package(one, ids[one.purl]) for one in bill.components)],
        "relationships": _relationships(bill, root, ids),
        "spdxVersion": "SPDX-2.3",
    }
    return msgspec.json.format(canonical_json(document), indent=2) + b"\n"


def _root(bill: Bill, identity: str) -> _Package:
    return _Package(
        spdx_id=identity,
        name=bill.name,
        version_info=bill.digest,
        download_location=_NONE,
        license_concluded=_NONE,
        license_declared=_NONE,
        copyright_text=_NONE,
        files_analyzed=False,
        checksums=_checksums(hex_of(bill.digest)),
        external_refs=_refs(bill.purl),
        primary_package_purpose="APPLICATION" if bill.of_lock else "CONTAINER",
        comment=f"not read: {', '.join(bill.unread)}" if bill.unread else "",
    )


def _package(one: Component, identity: str) -> _Package:
    declared = spdx_expression(one.licenses[0]) if len(one.licenses) == 1 else ""
    if "LicenseRef-" in declared:  # would have to be quoted in full
        declared = ""
    return _Package(
        spdx_id=identity,
        name=one.name,
        version_info=one.version,
        download_location=one.vcs if _LOCATION.fullmatch(one.vcs) else _NONE,
        license_concluded=_NONE,
        license_declared=declared or _NONE,
        license_comments="" if declared else ", ".join(one.licenses),
        copyright_text=_NONE,
        files_analyzed=False,
        checksums=_checksums(one.sha256),
        external_refs=_refs(one.purl),
        package_file_name=one.filename,
        primary_package_purpose="CONTAINER" if one.kind == "image" else "LIBRARY",
    )


def _relationships(bill: Bill, root: str, ids: dict[str, str]) -> list[_Relationship]:
    found = [("SPDXRef-DOCUMENT", "DESCRIBES", root)]
    found += [(root, "CONTAINS", ids[one.purl]) for one in bill.components]
    found += [(ids[one.purl], "DEPENDS_ON", ids[needed]) for one in bill.components for needed in one.requires]
    return [
        _Relationship(spdx_element_id=one, relationship_type=kind, related_spdx_element=other)
        for one, kind, other in found
    ]


def _id(kind: str, purl: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", purl.removeprefix("pkg:").partition("?")[0])
    return f"SPDXRef-{kind}-{plain}-{key_of(purl)[:8]}"


def _checksums(sha256: str) -> tuple[_Checksum, ...]:
    return (_Checksum(algorithm="SHA256", checksum_value=sha256),) if sha256 else ()


def _refs(purl: str) -> tuple[_ExternalRef, ...]:
    return (_ExternalRef(reference_category="PACKAGE-MANAGER", reference_type="purl", reference_locator=purl),)
