"""WWW-Authenticate as registries write it, and as they should not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a b"', [("basic", {"realm": "a b"})]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:x/y:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:x/y:pull,push",
                    },
                )
            ],
        ),
        ('BEARER Realm = "x" , Service = y', [("bearer", {"realm": "x", "service": "y"})]),
        ("Bearer realm=https://a.example/t,service=s", [("bearer", {"realm": "https://a.example/t", "service": "s"})]),
        ('Basic realm="x", Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Negotiate abc==, Bearer realm="y"', [("negotiate", {}), ("bearer", {"realm": "y"})]),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": 'a"b\\c'})]),
        (', , Basic realm="x",,', [("basic", {"realm": "x"})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ('Bearer realm="never closed', [("bearer", {})]),
        ('"quoted"', []),
        ("=;=", []),
    ],
)
def test_table(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    """What RFC 9110 allows is read, nonsense ends the list."""
    found = parse_challenges([header])
    assert found[: len(expected)] == tuple(Challenge(scheme=scheme, parameters=rest) for scheme, rest in expected)
    if '"never' not in header:
        assert len(found) == len(expected)


def test_headers_add_up() -> None:
    """A registry may send one challenge per header."""
    assert [one.scheme for one in parse_challenges(['Basic realm="x"', 'Bearer realm="y"'])] == ["basic", "bearer"]


@given(st.lists(st.text(max_size=200), max_size=3))
def test_never_fails(headers: list[str]) -> None:
    """No header makes it raise, and schemes are words."""
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
        assert " " not in challenge.scheme


def test_long_nonsense_is_quick() -> None:
    """No header takes quadratic time."""
    parse_challenges(["Bearer " + 'a="' * 100_000, "a=b " * 100_000, ", " * 1_000_000, "\\" * 500_000])
