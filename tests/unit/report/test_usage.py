"""Bytes by package and layer, and what is there twice."""

from fakes.images import debs, make_image, wheel

from mlbox.report.contents import contents_of
from mlbox.report.usage import Usage, usage_of
from mlbox.store.store import Store

BIG = bytes(70_000)


def usage(store: Store, **layers: dict[str, bytes]) -> Usage:
    return usage_of(store, contents_of(store, make_image(store, layers), "me:1"))


def test_sums_are_exact(store: Store) -> None:
    """Packages and layers both add up to the whole, also where a file hides another."""
    found = usage(
        store,
        base=debs(("a", "1", "", {"usr/x": b"12345"})),
        env=wheel("p", p__one=b"123", p__two=b"1" * 1000),
        project={"workspace/f": b"1", "usr/x": b"other"},
    )

    assert sum(one.size for one in found.packages) == sum(one.content for one in found.layers) == found.content
    assert [one.size for one in found.packages] == sorted((one.size for one in found.packages), reverse=True)
    assert abs(sum(one.share for one in found.packages) - 1) < 1e-4
    assert found.packages[0].name == "p"
    assert next(one for one in found.packages if one.name == "a").layers == ("base", "project")


def test_duplicates_are_equal_bytes_of_different_packages(store: Store) -> None:
    """Same size is not enough, and neither are two files of one package."""
    one = wheel("one", one__libgomp=BIG, one__again=BIG, one__other=b"1" * 70_000)
    two = wheel("two", two__libgomp=BIG, two__small=b"x")

    found = usage(store, env={**one, **two})

    assert len(found.duplicates) == 1
    assert {copy.package for copy in found.duplicates[0].copies} == {"one 1.0", "two 1.0"}
    assert found.duplicates[0].wasted == 2 * len(BIG)


def test_an_empty_image(store: Store) -> None:
    found = usage(store, nothing={})

    assert (found.content, found.packages, found.layers[0].share) == (0, (), 0.0)
