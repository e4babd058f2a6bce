"""The treemap as rectangles, for print and for browsers without scripts; the script of the page draws its own."""

from __future__ import annotations

from dataclasses import dataclass

from squarify import normalize_sizes, squarify

from heapdump.render.report.content import Box
from heapdump.render.text import short_size

WIDTH, HEIGHT = 1000, 460
_HEAD, _EDGE = 18, 3
_LEAST = 4
"""Pixels of the narrower side of a rectangle that is drawn."""


@dataclass(frozen=True, slots=True)
class Square:
    """A rectangle; `label` is "" where there is no room for one."""

    x: float
    y: float
    width: float
    height: float
    css: str
    label: str
    title: str
    depth: int


def squares(root: Box) -> list[Square]:
    """Two levels of the treemap by committed bytes, in a picture of WIDTH × HEIGHT."""
    out = []
    for box, place in _laid(root.children, (0, 0, WIDTH, HEIGHT)):
        out.append(_square(box, place, 0))
        x, y, width, height = place
        inner = (x + _EDGE, y + _HEAD, width - 2 * _EDGE, height - _HEAD - _EDGE)
        if min(inner[2:]) > _LEAST:
            out += [_square(child, at, 1) for child, at in _laid(box.children, inner)]
    return out


_Place = tuple[float, float, float, float]


def _laid(boxes: tuple[Box, ...], place: _Place) -> list[tuple[Box, _Place]]:
    """The boxes that are wide enough, with their places."""
    sized = sorted((box for box in boxes if box.committed > 0), key=lambda box: -box.committed)
    if not sized:
        return []
    x, y, width, height = place
    areas = normalize_sizes([box.committed for box in sized], width, height)
    rects = squarify(areas, x, y, width, height)
    found = [(box, (r["x"], r["y"], r["dx"], r["dy"])) for box, r in zip(sized, rects, strict=True)]
    return [(box, at) for box, at in found if min(at[2:]) >= _LEAST]


def _square(box: Box, place: _Place, depth: int) -> Square:
    x, y, width, height = (round(value, 1) for value in place)
    size = short_size(box.committed)
    most = int(width / 6.5) - 1
    words = f"{box.name}  {size}"
    label = words if len(words) <= most else box.name[:most]
    return Square(x, y, width, height, box.css, label if most > 4 and height > 14 else "", f"{box.name}: {size}", depth)
