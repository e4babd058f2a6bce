"""Draws tables and lines: aligned, quiet, right at 80 and at 160 columns, whole in a pipe.

Widths are those of terminal cells (rich's), so that wide characters keep the columns straight. rich turns style names
into colours; a table's cells are joined here, because its own table needs a millisecond for each row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

from heapdump.render.text import count, printable
from heapdump.render.view import Column, Lines, Table

_GAP = 2
_PIPE_WIDTH = 100_000


def draw(parts: Iterable[Table[Any] | Lines], *, color: bool, width: int, explain: bool) -> Iterator[str]:
    """The text of each part, with line ends. `width` in columns; `color` writes ANSI codes."""
    pen = _Pen(color)
    for i, part in enumerate(parts):
        if i:
            yield "\n"
        if isinstance(part, Lines):
            yield from pen.wrapped(part, width)
        else:
            yield from _table(pen, part, width, explain=explain)


def output_width(*, is_terminal: bool) -> int:
    """Columns to fill: $COLUMNS, else the terminal's; without a terminal nothing is cut."""
    if os.environ.get("COLUMNS", "").isdigit() and int(os.environ["COLUMNS"]) > 0:
        return int(os.environ["COLUMNS"])
    if not is_terminal:
        return _PIPE_WIDTH
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 80


class _Pen:
    """Writes text in rich's styles, or plain."""

    def __init__(self, color: bool) -> None:
        self._color = color
        self._console = Console(width=_PIPE_WIDTH, highlight=False, markup=False, emoji=False)

    def write(self, text: str, style: str) -> str:
        """The text in a style, or as it is."""
        if not self._color or not style or not text.strip():
            return text
        return _parsed(style).render(text, color_system=ColorSystem.EIGHT_BIT)

    def wrapped(self, part: Lines, width: int) -> Iterator[str]:
        """Lines folded at words; what follows the first line hangs two columns further in."""
        for pieces in part.lines:
            text = Text.assemble(*((printable(text), style) for text, style in pieces))
            plain = text.plain
            hang = len(plain) - len(plain.lstrip()) + 2
            if text.cell_len <= width:
                lines = [text]
            else:
                first = text.wrap(self._console, width)[0]
                behind = plain[len(first.plain) :]  # a space where the first line is full to the last column
                rest = text[len(plain) - len(behind.lstrip()) :].wrap(self._console, max(20, width - hang))
                lines = [first, *(Text(" " * hang) + line for line in rest)]
            for line in lines:
                line.rstrip()
                yield self._styled(line) + "\n"

    def _styled(self, text: Text) -> str:
        if not self._color:
            return text.plain
        return "".join(
            _parsed(str(segment.style)).render(segment.text, color_system=ColorSystem.EIGHT_BIT)
            if segment.style
            else segment.text
            for segment in text.render(self._console)
        )


@cache
def _parsed(style: str) -> Style:
    return Style.parse(style)


def _table(pen: _Pen, part: Table[Any], width: int, *, explain: bool) -> Iterator[str]:
    if part.title:
        yield pen.write(part.title, "bold") + "\n"
    if not part.rows and part.empty:
        yield pen.write(part.empty, "dim") + "\n"
        return
    cells = [[printable(column.text(row)) for column in part.columns] for row in part.rows]
    shown, dropped = _fitting(part.columns, cells, width)
    widths = _widths(part.columns, cells, shown, width)
    yield _line(pen, part.columns, shown, widths, [c.title for c in part.columns], ["bold"] * len(part.columns))
    for row, texts in zip(part.rows, cells, strict=True):
        styles = [c.style(row) if callable(c.style) else c.style for c in part.columns]
        yield _line(pen, part.columns, shown, widths, texts, styles)
    if part.hidden:
        yield pen.write(f"… {count(part.hidden)} more (--all shows them, --limit N as many as you like)", "dim") + "\n"
    if dropped:
        titles = ", ".join(part.columns[i].title for i in dropped)
        yield from pen.wrapped(Lines([[(f"not shown at this width: {titles}", "dim")]]), width)
    if explain:
        lines = [[(f"  {part.columns[i].title or '*'}: ", "bold"), (part.columns[i].explain, "dim")] for i in shown]
        yield from pen.wrapped(Lines(lines), width)


def _line(
    pen: _Pen, columns: Sequence[Column[Any]], shown: Sequence[int], widths: dict[int, int], texts: Sequence[str],
    styles: Sequence[str],
) -> str:  # fmt: skip
    out = []
    for i in shown:
        text, pad = texts[i], widths[i] - cell_len(texts[i])
        if pad < 0:
            text, pad = set_cell_size(text, widths[i] - 1) + "…", 0
        written = pen.write(text, styles[i])
        out.append(" " * pad + written if columns[i].right else written + " " * pad)
    return (" " * _GAP).join(out).rstrip() + "\n"


def _full(columns: Sequence[Column[Any]], cells: Sequence[Sequence[str]], i: int) -> int:
    """Cells that column `i` needs for every text."""
    return max([cell_len(columns[i].title), *(cell_len(row[i]) for row in cells)])


def _widths(
    columns: Sequence[Column[Any]], cells: Sequence[Sequence[str]], shown: Sequence[int], width: int
) -> dict[int, int]:
    """The width of each shown column: what it needs, a flexible one what is left. Numbers are never cut."""
    full = {i: _full(columns, cells, i) for i in shown}
    flexible = [i for i in shown if columns[i].flexible]
    left = width - sum(full[i] for i in shown if i not in flexible) - _GAP * (len(shown) - 1)
    for i in flexible:
        full[i] = min(full[i], max(columns[i].flexible, left // len(flexible)))
    return full


def _fitting(columns: Sequence[Column[Any]], cells: Sequence[Sequence[str]], width: int) -> tuple[list[int], list[int]]:
    """(indices of the columns that fit, of those left out): the highest ranks go first."""
    needed = [_full(columns, cells, i) for i in range(len(columns))]
    needed = [min(n, c.flexible) if c.flexible else n for n, c in zip(needed, columns, strict=True)]
    shown = list(range(len(columns)))
    dropped: list[int] = []
    while sum(needed[i] + _GAP for i in shown) - _GAP > width:
        droppable = [i for i in shown if columns[i].rank]
        if not droppable:
            break
        worst = max(droppable, key=lambda i: (columns[i].rank, i))
        shown.remove(worst)
        dropped.append(worst)
    return shown, sorted(dropped)
