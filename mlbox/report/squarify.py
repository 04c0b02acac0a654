"""Squarified treemaps (Bruls, Huizing, van Wijk, 2000): areas as given, rectangles as square as they can be. Pure."""

from collections.abc import Sequence
from typing import NamedTuple


class Rect(NamedTuple):
    """A rectangle; `x` and `y` are its upper left corner."""

    x: float
    y: float
    w: float
    h: float


def squarify(sizes: Sequence[float], room: Rect) -> list[Rect]:
    """Return a rectangle for each of `sizes`, in their order; together they tile `room`, areas as the sizes.

    Sizes that are not above zero get an empty rectangle. The largest come first, from the upper left.
    """
    rects = [Rect(room.x, room.y, 0.0, 0.0)] * len(sizes)
    order = sorted((i for i, size in enumerate(sizes) if size > 0), key=lambda i: -sizes[i])
    total = sum(sizes[i] for i in order)
    if not order or room.w <= 0 or room.h <= 0:
        return rects
    areas = [sizes[i] * (room.w * room.h / total) for i in order]
    start = 0
    while start < len(areas):
        side = min(room.w, room.h)
        end = _row_end(areas, start, side)
        # What rounding left over goes to the last row, so that nothing stays uncovered.
        row, room = _lay_row(areas[start:end], room, last=end == len(areas))
        for position, rect in enumerate(row, start):
            rects[order[position]] = rect
        start = end
    return rects


def _row_end(areas: Sequence[float], start: int, side: float) -> int:
    """Return the end of the row from `start` whose worst rectangle is as square as possible."""
    total = areas[start]
    worst = _worst(areas[start], areas[start], total, side)
    end = start + 1
    while end < len(areas):
        total += areas[end]
        next_worst = _worst(areas[start], areas[end], total, side)
        if next_worst > worst:
            break
        worst = next_worst
        end += 1
    return end


def _worst(largest: float, smallest: float, total: float, side: float) -> float:
    thick = total / side
    if thick <= 0 or smallest <= 0:
        return float("inf")
    return max(largest / thick / thick, thick * thick / smallest)


def _lay_row(areas: Sequence[float], room: Rect, *, last: bool) -> tuple[list[Rect], Rect]:
    """Lay a row along the shorter side; return its rectangles and the room that is left."""
    total = sum(areas)
    upright = room.w >= room.h
    side, depth = (room.h, room.w) if upright else (room.w, room.h)
    thick = depth if last else min(depth, total / side)
    row, done = [], 0.0
    for number, area in enumerate(areas):
        length = side - done if number == len(areas) - 1 else side * area / total
        if upright:
            row.append(Rect(room.x, room.y + done, thick, length))
        else:
            row.append(Rect(room.x + done, room.y, length, thick))
        done += length
    if upright:
        return row, Rect(room.x + thick, room.y, room.w - thick, room.h)
    return row, Rect(room.x, room.y + thick, room.w, room.h - thick)
