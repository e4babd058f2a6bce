"""The figure of who holds what as shapes: two columns of ends, and bands between them as wide as their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heapdump.render.report.content import Flow, FlowEnd
from heapdump.render.text import short_size

WIDTH = 1000
_LEFT, _RIGHT, _BAR = 372, 628, 9
"""Inner edges of the two columns of bars, and the width of a bar."""

_HEIGHT, _PITCH, _LEAST = 260, 21, 2
"""Height of all bytes; the least one of an end with its label, and of a bar."""

_CHARACTERS = 46


@dataclass(frozen=True, slots=True)
class End:
    """A bar with its label. `hue`: number of its colour."""

    x: float
    y: float
    height: float
    text_x: float
    label: str
    title: str
    hue: int


@dataclass(frozen=True, slots=True)
class Ribbon:
    """A band: an outline for SVG, as wide as its bytes."""

    bytes: int
    path: str
    title: str
    hue: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """The whole figure. `width`, `height`: of its coordinates; `holders`, `types`: the columns."""

    width: int
    height: int
    holders: tuple[End, ...]
    types: tuple[End, ...]
    ribbons: tuple[Ribbon, ...]


def drawing(flow: Flow) -> Drawing:
    """The shapes; colours are those of the holders."""
    total = sum(one.bytes for one in flow.holders) or 1
    left, right = _column(flow.holders, total, is_left=True), _column(flow.types, total, is_left=False)
    from_left, from_right = [one.y for one in left], [one.y for one in right]
    ribbons = []
    for band in flow.bands:
        thick = max(0.6, _HEIGHT * band.bytes / total)
        y0, y1 = from_left[band.holder], from_right[band.type]
        from_left[band.holder] += _HEIGHT * band.bytes / total
        from_right[band.type] += _HEIGHT * band.bytes / total
        holder, kind = flow.holders[band.holder].name, flow.types[band.type].name
        ribbons.append(
            Ribbon(band.bytes, _outline(y0, y1, thick), f"{holder}: {short_size(band.bytes)} of {kind}", band.holder)
        )
    bottom = max(one.y + max(one.height, _PITCH) for one in (*left, *right))
    return Drawing(WIDTH, round(bottom) + 4, left, right, tuple(ribbons))


def _column(ends: Sequence[FlowEnd], total: int, *, is_left: bool) -> tuple[End, ...]:
    out, y = [], 4.0
    for hue, one in enumerate(ends):
        height = max(_LEAST, _HEIGHT * one.bytes / total)
        size = short_size(one.bytes)
        name = one.name.partition(": ")[0]
        short = name if len(name) <= _CHARACTERS else f"{name[: _CHARACTERS - 1]}…"
        x, text_x = (_LEFT - _BAR, _LEFT - _BAR - 8) if is_left else (_RIGHT, _RIGHT + _BAR + 8)
        out.append(End(x, round(y, 1), round(height, 1), text_x, f"{short}  {size}", f"{one.name}: {size}", hue))
        y += max(height, _PITCH) + 5
    return tuple(out)


def _outline(left: float, right: float, thick: float) -> str:
    """A band from one column to the other: two curves and two straight ends."""
    middle = (_LEFT + _RIGHT) / 2
    a, b, c, d = (round(value, 1) for value in (left, right, left + thick, right + thick))
    return (
        f"M{_LEFT} {a}C{middle:g} {a} {middle:g} {b} {_RIGHT} {b}L{_RIGHT} {d}"
        f"C{middle:g} {d} {middle:g} {c} {_LEFT} {c}Z"
    )
