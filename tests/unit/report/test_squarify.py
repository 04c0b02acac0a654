"""Treemaps: areas as given, nothing overlaps, nothing is left."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.report.squarify import Rect, squarify

SIZES = st.lists(st.integers(0, 10**9), max_size=60)
ROOMS = st.tuples(st.floats(1, 2000), st.floats(1, 2000))


@given(SIZES, ROOMS)
def test_areas_are_as_the_sizes(sizes: list[int], room: tuple[float, float]) -> None:
    width, height = room
    total = sum(sizes)

    for size, rect in zip(sizes, squarify(sizes, Rect(3, 4, width, height)), strict=True):
        expected = width * height * size / total if total else 0
        assert rect.w * rect.h == pytest.approx(expected, rel=1e-6, abs=1e-6 * width * height)


@given(SIZES.filter(any), ROOMS)
def test_rectangles_tile_the_room(sizes: list[int], room: tuple[float, float]) -> None:
    """They lie inside, no two overlap, and together they cover it."""
    width, height = room
    slack = 1e-7 * max(width, height)
    rects = [rect for rect, size in zip(squarify(sizes, Rect(0, 0, width, height)), sizes, strict=True) if size]

    assert all(rect.x >= -slack and rect.y >= -slack for rect in rects)
    assert all(rect.x + rect.w <= width + slack and rect.y + rect.h <= height + slack for rect in rects)
    for one, two in itertools.combinations(rects, 2):
        across = min(one.x + one.w, two.x + two.w) - max(one.x, two.x)
        down = min(one.y + one.h, two.y + two.h) - max(one.y, two.y)
        assert across <= slack or down <= slack
    assert sum(rect.w * rect.h for rect in rects) == pytest.approx(width * height, rel=1e-6)


def test_the_papers_example_is_squarish() -> None:
    """Section 3.1: sizes 6 6 4 3 2 2 1 in a room of 6 x 4; the first two stand over each other."""
    rects = squarify([6, 6, 4, 3, 2, 2, 1], Rect(0, 0, 6, 4))

    assert rects[:2] == [Rect(0, 0, 3, 2), Rect(0, 2, 3, 2)]
    assert max(max(rect.w / rect.h, rect.h / rect.w) for rect in rects) < 3


@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_nothing_to_lay_out(sizes: list[int]) -> None:
    assert all(rect.w * rect.h == 0 for rect in squarify(sizes, Rect(0, 0, 10, 10)))
