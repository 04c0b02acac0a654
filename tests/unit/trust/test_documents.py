"""Bills of materials and provenance: the documents, checked against the schemas of those who invented them."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packageurl import PackageURL

from mlbox.lock.model import Base, Deb, Folder, LayerGroup, Lock, Package, Target
from mlbox.oci.digest import Digest
from mlbox.trust.bill import Bill, bill_of_lock, make_bill, package_url
from mlbox.trust.cyclonedx import cyclonedx
from mlbox.trust.inventory import Found, Inventory
from mlbox.trust.provenance import provenance
from mlbox.trust.spdx import spdx
from mlbox.trust.statement import parse_statement

GOLDEN = Path(__file__).parents[2] / "golden" / "trust"
ONE = Digest("sha256:" + "ab" * 32)
BASE = Digest("sha256:" + "ba" * 32)
NAME = "registry.example:5000/team/bert"

LOCK = Lock(
    inputs="sha256:" + "1" * 64,
    target=Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36"),
    base=Base(suite="bookworm"),
    system_packages=("git",),
    packages=(
        Package(
            name="numpy",
            version="2.4.6",
            filename="numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl",
            sha256="2" * 64,
            size=7,
            wanted_by=("requirements.txt:1",),
        ),
        Package(
            name="ours",
            version="1+local",
            filename=f"ours-{'c' * 40}.git",
            sha256="",
            index="git",
            url="https://git.example.org/team/ours",
            commit="c" * 40,
            subdirectory="python",
            requires=("numpy",),
            wanted_by=("requirements.txt:2",),
        ),
        Package(name="absent", version="1", filename="absent-1-py3-none-any.whl", sha256="9" * 64),
    ),
    build_packages=(
        Package(name="setuptools", version="80", filename="setuptools-80-py3-none-any.whl", sha256="8" * 64),
    ),
    layers=(LayerGroup(name="small", packages=("numpy", "ours", "absent")),),
    debs=(
        Deb(
            name="libc6",
            version="2.36-9+deb12u4",
            arch="amd64",
            path="pool/main/g/glibc/libc6_2.36-9+deb12u4_amd64.deb",
            sha256="3" * 64,
            size=9,
            suite="bookworm",
            role="base",
        ),
    ),
)
INVENTORY = Inventory(
    distribution="debian",
    release="12",
    packages=(
        Found(
            kind="debian", name="git", version="1:2.39", arch="amd64", licenses=("GPL-2",), requires=("libc6", "perl")
        ),
        Found(kind="debian", name="libc6", version="2.36-9+deb12u4", arch="amd64", source="glibc"),
        Found(kind="python", name="numpy", version="2.4.6", licenses=("BSD-3-Clause",)),
        Found(kind="python", name="ours", version="1+local", requires=("requests",)),
    ),
)


def bill(lock: Lock | None = LOCK, inventory: Inventory = INVENTORY, created: str = "1980-01-01T00:00:00Z") -> Bill:
    return make_bill(inventory, lock, name=NAME, digest=ONE, arch="amd64", created=created)


ALPINE = Inventory(
    distribution="alpine",
    release="3.21",
    packages=(Found(kind="alpine", name="musl", version="1.2.5-r9", arch="x86_64", licenses=("MIT",)),),
    unread=("var/lib/rpm/",),
)
MADE = [bill(), bill(None), bill(None, Inventory()), bill(None, ALPINE)]


def golden(name: str, data: bytes) -> None:
    """Compare with the golden file; the version of mlbox is left out."""
    from mlbox import __version__

    data = data.replace(__version__.encode(), b"VERSION")
    if os.environ.get("MLBOX_UPDATE_GOLDEN"):
        (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name).write_bytes(data)
    assert (GOLDEN / name).read_bytes() == data


def test_the_layers_say_what_is_there_and_the_lock_where_it_is_from() -> None:
    """A locked package that is not in the image is not in the bill, and nothing is without its hash that has one."""
    parts = {part.name: part for part in bill().components}
    assert sorted(parts) == ["git", "libc6", "numpy", "ours"]
    assert (parts["numpy"].sha256, parts["libc6"].sha256, parts["git"].sha256) == ("2" * 64, "3" * 64, "")
    assert parts["ours"].vcs == f"git+https://git.example.org/team/ours@{'c' * 40}#python"
    assert parts["ours"].requires == (parts["numpy"].purl,)
    assert parts["git"].requires == (parts["libc6"].purl,)
    assert parts["libc6"].purl == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc"


def test_another_images_lock_adds_no_hash() -> None:
    """A hash belongs to a version."""
    other = msgspec.structs.replace(
        INVENTORY, packages=(Found(kind="python", name="numpy", version="2.4.5", licenses=()),)
    )
    assert [(part.version, part.sha256) for part in bill(inventory=other).components] == [("2.4.5", "")]


def test_what_the_project_asks_for_is_at_the_top() -> None:
    """Also when something else needs it too."""
    parts = {part.purl: part.name for part in bill().components}
    assert sorted(parts[purl] for purl in bill().top) == ["git", "numpy", "ours"]
    without = {part.purl: part.name for part in bill(None).components}
    assert sorted(without[purl] for purl in bill(None).top) == ["git", "numpy", "ours"]


def test_a_folder_of_the_project_is_no_package_of_an_index() -> None:
    """Whoever looks a bill up in an index's advisories must not find somebody else's package of that name."""
    folder = Folder(name="thing", path="libs/thing", requires=("numpy",), wanted_by=("pyproject.toml",))
    lock = msgspec.structs.replace(LOCK, folders=(folder,))
    found = Found(kind="python", name="thing", version="1.0")
    made = bill(lock, msgspec.structs.replace(INVENTORY, packages=(*INVENTORY.packages, found)))
    part = made.components[-1]
    assert (part.purl, part.filename, part.requires) == (
        "pkg:generic/thing@1.0",
        "./libs/thing",
        ("pkg:pypi/numpy@2.4.6",),
    )
    assert part.purl in made.top
    (locked,) = (one for one in bill_of_lock(lock, name="x").components if one.name == "thing")
    assert (locked.purl, locked.filename) == ("pkg:generic/thing", "./libs/thing")
    for write in (cyclonedx, spdx):
        assert b"pkg:generic/thing" in write(bill_of_lock(lock, name="x"))


def test_an_image_below_is_part_of_the_bill() -> None:
    """With its digest, which is all that is known of it."""
    base = Base(kind="image", reference="docker.io/library/python:3.12-slim", digest=ONE, manifest=BASE, config=ONE)
    part = bill(msgspec.structs.replace(LOCK, base=base)).components[-1]
    assert (part.kind, part.version, part.sha256) == ("image", BASE, "ba" * 32)
    assert part.purl == f"pkg:oci/python@sha256:{'ba' * 32}?arch=amd64&repository_url=docker.io/library/python"


@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9+.-]+", fullmatch=True),
    version=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
    qualifier=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
)
def test_package_urls_are_read_back_by_the_reference_library(name: str, version: str, qualifier: str) -> None:
    """Whatever stands in a version."""
    if version.strip() != version or qualifier.strip() != qualifier:
        return
    read = PackageURL.from_string(package_url("deb", "debian", name, version, {"arch": qualifier, "none": ""}))
    assert (read.name, read.version, read.qualifiers) == (name, version, {"arch": qualifier})


@pytest.mark.parametrize(("name", "write"), [("bill.cdx.json", cyclonedx), ("bill.spdx.json", spdx)])
def test_bills_are_golden(name: str, write: Any) -> None:
    """Byte for byte, and twice the same."""
    assert write(bill()) == write(bill())
    golden(name, write(bill()))


def test_provenance_is_golden() -> None:
    """Byte for byte: no time, no host."""
    golden("provenance.json", msgspec.json.format(provenance(ONE, NAME, LOCK, b"the lock", None), indent=2) + b"\n")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", MADE, ids=["locked", "foreign", "empty", "alpine"])
def test_cyclonedx_fits_the_schema(made: Bill) -> None:
    """The strict validator of the format's own library finds nothing."""
    validation = pytest.importorskip("cyclonedx.validation.json")
    pytest.importorskip("jsonschema")
    from cyclonedx.schema import SchemaVersion

    text = cyclonedx(made).decode()
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    refs = {part["bom-ref"] for part in document.get("components", [])} | {document["metadata"]["component"]["bom-ref"]}
    assert {one["ref"] for one in document["dependencies"]} == refs
    assert {ref for one in document["dependencies"] for ref in one.get("dependsOn", [])} <= refs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", MADE, ids=["locked", "foreign", "empty", "alpine"])
def test_spdx_is_valid(made: Bill) -> None:
    """SPDX's own tools find nothing."""
    parser = pytest.importorskip("spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser")
    validator = pytest.importorskip("spdx_tools.spdx.validation.document_validator")
    document = parser.JsonLikeDictParser().parse(json.loads(spdx(made)))
    assert validator.validate_full_spdx_document(document) == []


@pytest.mark.parametrize(
    ("created", "said"),
    [
        ("2026-11-21T06:00:00.123456789Z", "2026-11-21T06:00:00Z"),
        ("2026-11-21T08:00:00+02:00", "2026-11-21T06:00:00Z"),
        ("0001-01-01T00:00:00Z", "1980-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+14:00", "1980-01-01T00:00:00Z"),
        ("yesterday", "1980-01-01T00:00:00Z"),
        ("", "1980-01-01T00:00:00Z"),
    ],
)
def test_the_time_is_the_images(created: str, said: str) -> None:
    """Never that of writing; what is no time is 1980."""
    assert json.loads(spdx(bill(created=created)))["creationInfo"]["created"] == said


def test_a_bill_that_is_not_whole_says_so() -> None:
    """In both formats, at the image itself."""
    made = bill(None, ALPINE)
    assert made.components[0].purl == "pkg:apk/alpine/musl@1.2.5-r9?arch=x86_64&distro=alpine-3.21"
    root = json.loads(cyclonedx(made))["metadata"]["component"]
    assert root["properties"] == [{"name": "mlbox:unread", "value": "var/lib/rpm/"}]
    assert json.loads(spdx(made))["packages"][0]["comment"] == "not read: var/lib/rpm/"


def test_provenance_names_every_material_by_its_digest() -> None:
    """Also what only the build needed."""
    statement = parse_statement(provenance(ONE, NAME, LOCK, b"the lock", None))
    assert statement.is_about(ONE)
    predicate = msgspec.json.decode(statement.predicate)
    materials = {one["name"]: one["digest"] for one in predicate["buildDefinition"]["resolvedDependencies"]}
    assert materials == {
        "numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl": {"sha256": "2" * 64},
        f"ours-{'c' * 40}.git": {"gitCommit": "c" * 40},
        "absent-1-py3-none-any.whl": {"sha256": "9" * 64},
        "setuptools-80-py3-none-any.whl": {"sha256": "8" * 64},
        "libc6_2.36-9+deb12u4_amd64.deb": {"sha256": "3" * 64},
    }


@pytest.mark.parametrize(("suite", "distribution"), [("bookworm-security", "debian"), ("noble-updates", "ubuntu")])
def test_provenance_names_packages_by_their_distribution(suite: str, distribution: str) -> None:
    """Debian's package and Ubuntu's of the same name are two."""
    debs = tuple(msgspec.structs.replace(deb, suite=suite) for deb in LOCK.debs)
    lock = msgspec.structs.replace(LOCK, debs=debs)

    assert f"pkg:deb/{distribution}/libc6@".encode() in provenance(ONE, NAME, lock, b"the lock", None)
