"""Which columns of a table are shown, and how wide they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heapdump.render.view import Column

GAP = 2
"""Cells between two columns."""

_FEWEST_SAME = 3
"""Rows from which on a column that is the same in all of them is told below the table."""

_NARROWEST = 8
"""Cells of a column that gives way where the width suffices for no table."""

Cells = Sequence[Sequence[str]]
"""Row → the texts of its columns."""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The columns of a table by index. Columns that are empty in every row are in none of these.

    Attributes:
        shown: columns that are shown, in order.
        widths: shown column → its width in terminal cells.
        dropped: columns that do not fit.
        same: columns with one text in every row, which a line below the table gives.
    """

    shown: Sequence[int]
    widths: dict[int, int]
    dropped: Sequence[int]
    same: Sequence[int]


def layout(columns: Sequence[Column[Any]], cells: Cells, needed: Sequence[int], width: int) -> TableLayout:
    """The columns that fit into `width` terminal cells: those with the highest ranks are left out first.

    `needed`: the terminal cells of each column's title and widest text.
    """
    same = [i for i, column in enumerate(columns) if column.folds and _is_same(cells, i)]
    asked = [i for i in range(len(columns)) if i not in same and not (i and _is_empty(cells, i))]
    least = {i: min(needed[i], columns[i].flexible or needed[i]) for i in asked}
    shown = _fitting(columns, least, width)
    widths = _widths(needed, _squeezed(columns, {i: least[i] for i in shown}, width), width)
    return TableLayout(shown, widths, [i for i in asked if i not in shown], same)


def _is_same(cells: Cells, i: int) -> bool:
    return len(cells) >= _FEWEST_SAME and bool(cells[0][i]) and len({row[i] for row in cells}) == 1


def _is_empty(cells: Cells, i: int) -> bool:
    return bool(cells) and not any(row[i] for row in cells)


def _fitting(columns: Sequence[Column[Any]], least: dict[int, int], width: int) -> list[int]:
    """The columns that fit with their least widths; one of a high rank also where one of a lower rank is too wide."""
    shown = set(least)

    def total() -> int:
        """Cells of the columns that are shown, with their gaps."""
        return sum(least[i] + GAP for i in shown) - GAP

    ranked = sorted((i for i in least if columns[i].rank), key=lambda i: (columns[i].rank, i))
    for i in reversed(ranked):
        if total() > width:
            shown.remove(i)
    for i in ranked:
        if i not in shown and total() + GAP + least[i] <= width:
            shown.add(i)
    return sorted(shown)


def _squeezed(columns: Sequence[Column[Any]], least: dict[int, int], width: int) -> dict[int, int]:
    """The least widths; where even they are too wide, the widest columns that can be folded or cut give way."""
    widths = dict(least)
    for _ in range(sum(widths.values()) + GAP * (len(widths) - 1) - width):
        soft = [i for i in widths if columns[i].flexible and widths[i] > _NARROWEST]
        if not soft:
            break
        widths[max(soft, key=lambda i: (widths[i], i))] -= 1
    return widths


def _widths(needed: Sequence[int], least: dict[int, int], width: int) -> dict[int, int]:
    """Column → its width: the least one, and of what is left as much as it needs; numbers are never cut."""
    widths = dict(least)
    left = width - sum(widths.values()) - GAP * (len(widths) - 1)
    while left > 0 and (hungry := [i for i in widths if widths[i] < needed[i]]):
        part = max(1, left // len(hungry))
        for i in hungry:
            more = min(part, needed[i] - widths[i], left)
            widths[i] += more
            left -= more
    return widths
