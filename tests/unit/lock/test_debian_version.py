"""Debian's order of versions, compared with dpkg's own where dpkg is."""

import shutil
import subprocess
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.lock.debian.version import satisfies, upstream_version, version_key

VERSIONS = st.from_regex(r"(?:[0-9]:)?[0-9][a-z0-9.+~]{0,6}(?:-[a-z0-9.+~]{1,4})?", fullmatch=True)
ASCENDING = ["1.0~~", "1.0~rc1-1", "1.0~rc1-1+b1", "1.0", "1.0-1~bpo1", "1.0-1", "1.0-1.1", "1.0a", "1.0+dfsg", "1.0.1"]
ASCENDING += ["1.9", "1.10", "2.36-9+deb12u9", "2.36-9+deb12u10", "1:0.1", "2:0"]


def test_the_order_is_debians() -> None:
    for older, newer in pairwise(ASCENDING):
        assert version_key(older) < version_key(newer), (older, newer)


@pytest.mark.parametrize(
    ("one", "same"), [("1.0", "1.0-0"), ("0:1", "1"), ("1.", "1.0"), ("1.01", "1.1"), ("1-0", "1-00")]
)
def test_equal_versions_may_be_written_differently(one: str, same: str) -> None:
    assert version_key(one) == version_key(same)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_it_is_a_total_order(a: str, b: str, c: str) -> None:
    x, y, z = sorted([version_key(a), version_key(b), version_key(c)])
    assert x <= y <= z
    assert x <= z


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (">=", (False, True, True)),
        ("<=", (True, True, False)),
        (">>", (False, False, True)),
        ("<<", (True, False, False)),
        ("=", (False, True, False)),
        ("", (True, True, True)),
        ("!=", (False, False, False)),
    ],
)
def test_relations(operator: str, expected: tuple[bool, bool, bool]) -> None:
    assert tuple(satisfies(version, operator, "1.1") for version in ("1.0", "1.1", "1.2")) == expected


def test_upstream_version() -> None:
    assert upstream_version("3.11.2-6+deb12u6") == "3.11.2"
    assert upstream_version("1:2.39.5-0-1") == "2.39.5-0"
    assert upstream_version("12") == "12"


def test_dpkg_agrees() -> None:
    if shutil.which("dpkg") is None:
        pytest.skip("dpkg is not installed")
    odd = [*ASCENDING, "1.0+", "1.0-1+b2", "1.0.", "a", "1a1", "1a.1", "1.0-a~", "1.0-a", "0", "00.1", "1~", "1:1~-1"]
    pairs = list(product(odd, odd))[::5]
    script = "\n".join(f"dpkg --compare-versions '{a}' lt '{b}' 2>&-; echo $?" for a, b in pairs)
    answers = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    wrong = [
        (a, b)
        for (a, b), answer in zip(pairs, answers, strict=True)
        if (answer == "0") != (version_key(a) < version_key(b))
    ]
    assert not wrong
