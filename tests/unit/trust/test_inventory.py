"""What is found in an image's files."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from mlbox.trust.inventory import Found, Inventory, read_inventory

STATUS = b"""Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
Source: bash (5.2.15-2)
Depends: base-files (>= 2.1.12), debianutils (>= 5.6-0.1) | other
Pre-Depends: libc6:amd64 (>= 2.36), libtinfo6 (>= 6)
Description: shell
 Package: not this one
 .
 more

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9
"""
COPYRIGHT = (
    b"Format: https://example/1.0\nFiles: *\nLicense: GPL-3+\n\nFiles: x\nLicense: MIT\n text\n\nLicense: GPL-3+\n"
)
SITE = "opt/mlbox/env/lib/python3.11/site-packages"


def found(files: Mapping[str, bytes]) -> Inventory:
    return read_inventory(files, lambda path: files[path])


def test_debian_packages() -> None:
    """Those that are installed, with their source, licences and what they need."""
    inventory = found(
        {
            "etc/os-release": b'ID=debian\nVERSION_ID="12"\nX\n',
            "var/lib/dpkg/status": STATUS,
            "usr/share/doc/bash/copyright": COPYRIGHT,
            "usr/share/doc/libc6/copyright": b"free text, License: unknown\n",
        }
    )
    assert (inventory.distribution, inventory.release) == ("debian", "12")
    assert inventory.packages == (
        Found(
            kind="debian",
            name="bash",
            version="5.2.15-2+b7",
            arch="amd64",
            source="bash@5.2.15-2",
            licenses=("GPL-3+", "MIT"),
            requires=("libc6", "libtinfo6", "base-files", "debianutils"),
        ),
        Found(kind="debian", name="libc6", version="2.36-9", arch="amd64", source="glibc"),
    )


def test_images_without_dpkg() -> None:
    """Distroless images keep one file per package, beside their checksums."""
    inventory = found(
        {
            "var/lib/dpkg/status.d/tzdata": b"Package: tzdata\nVersion: 2024a\nArchitecture: all\n",
            "var/lib/dpkg/status.d/tzdata.md5sums": b"Package: no\nVersion: 1\n",
        }
    )
    assert [one.name for one in inventory.packages] == ["tzdata"]


def test_alpine_packages() -> None:
    """With what they need by name; what is needed by what it provides is no package."""
    installed = (
        b"C:Q1x=\nP:busybox-binsh\nV:1.37.0-r12\nA:x86_64\nL:GPL-2.0-only\no:busybox\n"
        b"D:busybox=1.37.0-r12 so:libc.musl\nF:bin\nR:sh\n\nP:musl\nV:1.2.5-r9\nA:x86_64\nL:MIT\no:musl\n\n"
    )
    assert found({"lib/apk/db/installed": installed}).packages == (
        Found(
            kind="alpine",
            name="busybox-binsh",
            version="1.37.0-r12",
            arch="x86_64",
            source="busybox",
            licenses=("GPL-2.0-only",),
            requires=("busybox", "so:libc.musl"),
        ),
        Found(kind="alpine", name="musl", version="1.2.5-r9", arch="x86_64", licenses=("MIT",)),
    )


def test_what_cannot_be_read_is_named() -> None:
    """A bill that is not whole says so."""
    assert found({"var/lib/rpm/rpmdb.sqlite": b"", "usr/lib/sysimage/rpm/x": b""}).unread == (
        "var/lib/rpm/",
        "usr/lib/sysimage/rpm/",
    )


def test_packages_without_a_name_are_named_by_their_files() -> None:
    """Nothing is left out in silence, and nothing is listed that no package URL can say."""
    files = {
        "lib/apk/db/installed": b"P:/\nV:1\n\nP:musl\nV:1.2\n",
        "opt/c/conda-meta/x-1-0.json": b"{",
        "opt/c/conda-meta/y-1-0.json": b'{"name":"//","version":"1"}',
        "var/lib/dpkg/status": b"Package: /\nStatus: install ok installed\nVersion: 1\n",
        f"{SITE}/a.dist-info/METADATA": b"Name: /\nVersion: 1\n\n",
        f"{SITE}/b.dist-info/METADATA": b"Name: b\n\n",
    }
    inventory = found(files)
    assert [one.name for one in inventory.packages] == ["musl"]
    assert inventory.unread == tuple(sorted(files))


def test_python_distributions() -> None:
    """Wheels and eggs; those of Debian packages are part of these."""
    metadata = (
        b"Metadata-Version: 2.4\nName: Ruamel.Yaml\nVersion: 0.19\nLicense-Expression: mit or apache-2.0\n"
        b"Requires-Dist: ruamel.yaml.clib>=1; python_version < '3.15'\nRequires-Dist: pytest; extra == 'test'\n"
        b"Requires-Dist: !!\n\nName: no\n"
    )
    inventory = found(
        {
            f"{SITE}/ruamel_yaml-0.19.dist-info/METADATA": metadata,
            "usr/local/lib/python3.11/site-packages/old.egg-info/PKG-INFO": b"Name: old\nVersion: 1\n",
            "usr/lib/python3/dist-packages/gi-1.dist-info/METADATA": b"Name: gi\nVersion: 1\n",
            f"{SITE}/x/METADATA": b"Name: x\nVersion: 1\n",
            f"{SITE}/empty.dist-info/METADATA": b"",
        }
    )
    assert inventory.packages == (
        Found(kind="python", name="old", version="1"),
        Found(
            kind="python",
            name="ruamel-yaml",
            version="0.19",
            licenses=("MIT OR Apache-2.0",),
            requires=("ruamel-yaml-clib",),
        ),
    )


def test_licences_of_older_metadata() -> None:
    """An SPDX identifier in License, else the classifiers, else a short free text."""
    for fields, expected in (
        ("License: BSD-3-Clause", ("BSD-3-Clause",)),
        ("License: see file\nClassifier: License :: OSI Approved :: MIT License", ("MIT",)),
        ("Classifier: License :: OSI Approved :: BSD License", ("BSD License",)),
        ("License: my own", ("my own",)),
        (f"License: {'long ' * 50}", ()),
        ("", ()),
    ):
        data = f"Name: x\nVersion: 1\n{fields}\n".encode()
        assert found({f"{SITE}/x.dist-info/METADATA": data}).packages[0].licenses == expected


@given(st.binary(max_size=300))
def test_any_bytes_are_read(data: bytes) -> None:
    """Hostile metadata makes no error: it names packages or it does not."""
    found({"var/lib/dpkg/status": data, f"{SITE}/x.dist-info/METADATA": data, "etc/os-release": data})


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60))
def test_any_values_are_read(text: str) -> None:
    """Whatever stands in a field."""
    value = text.replace("\n", " ").encode()
    metadata = b"Name: x\nVersion: %b\nLicense-Expression: %b\nRequires-Dist: %b\n" % (value, value, value)
    status = b"Package: x\nVersion: %b\nSource: %b\nDepends: %b\n" % (value, value, value)
    found({"lib/apk/db/installed": b"P:x\nV:%b\nD:%b\nL:%b\n" % (value, value, value)})
    found({"var/lib/dpkg/status": status, f"{SITE}/x.dist-info/METADATA": metadata})


def test_conda_packages() -> None:
    """From conda's records, wherever the environment is; their distributions are not counted a second time."""
    record = b"""{"name": "numpy", "version": "2.0", "build": "py311_0", "subdir": "linux-64", "channel": "conda-forge",
        "license": "BSD-3-Clause", "depends": ["python >=3.11", "__glibc >=2.17", "conda-forge::libblas"],
        "files": ["lib/python3.11/site-packages/numpy-2.0.dist-info/METADATA"]}"""
    metadata = "opt/env/lib/python3.11/site-packages/{}-2.0.dist-info/METADATA"
    files = {
        "opt/env/conda-meta/numpy-2.0-py311_0.json": record,
        "opt/env/conda-meta/broken-1-0.json": b"{",
        "opt/env/conda-meta/history": b"",
        metadata.format("numpy"): b"Name: numpy\nVersion: 2.0\n\n",
        metadata.format("six"): b"Name: six\nVersion: 2.0\n\n",
    }
    assert found(files).packages == (
        Found(
            kind="conda",
            name="numpy",
            version="2.0",
            arch="linux-64",
            build="py311_0",
            channel="conda-forge",
            licenses=("BSD-3-Clause",),
            requires=("python", "libblas"),
        ),
        Found(kind="python", name="six", version="2.0"),
    )
