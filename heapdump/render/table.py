"""Pages of tables and lines as text: aligned, without frames, for 80 and for 160 columns, uncut in a pipe.

Widths are those of terminal cells (rich's), so that wide characters keep the columns straight. rich turns style names
into colours. The cells of a table are joined here: rich's own table needs a millisecond for each row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from heapdump.render.folding import GLUE, UNIT, fold
from heapdump.render.layout import GAP, layout
from heapdump.render.text import count, printable
from heapdump.render.view import COMMAND, Column, Lines, PageItem, Sections, StyledLine, Table

_MARGIN = 9
"""Cells of the margin that holds the labels of sections."""

_PIPE_WIDTH = 100_000
_MOST_DIGITS = 20


def draw(page: Iterable[PageItem], *, color: bool, width: int, explain: bool, exact: bool = False) -> Iterator[str]:
    """The text of each item, with line ends.

    Args:
        page: the items.
        color: True to write ANSI codes.
        width: columns of the terminal.
        explain: True to write the origin of each column below a table.
        exact: True to write sizes in bytes.
    """
    pen = _Pen(color)
    for i, item in enumerate(page):
        if i:
            yield "\n"
        if isinstance(item, Lines):
            yield from pen.wrapped(item, width)
        elif isinstance(item, Sections):
            yield from _sections(pen, item, width)
        else:
            yield from _table(pen, item, _TableStyle(width, explain, exact))


def output_width(*, is_terminal: bool) -> int:
    """Columns of the output: $COLUMNS, else the terminal's; without a terminal wide enough that nothing is cut."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked[:_MOST_DIGITS]) > 0:
        return min(int(asked[:_MOST_DIGITS]), _PIPE_WIDTH)
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
        theme = Theme({COMMAND: "cyan"})
        # neither size nor colours of the environment: rich fails on `LINES=²`
        self._console = Console(
            width=_PIPE_WIDTH, height=25, highlight=False, markup=False, emoji=False, theme=theme, _environ={}
        )

    def write(self, text: str, style: str) -> str:
        """The text in a style, or as it is."""
        if not self._color or not style or not text.strip():
            return text
        return _parsed(style).render(text, color_system=ColorSystem.EIGHT_BIT)

    def wrapped(self, lines: Lines, width: int) -> Iterator[str]:
        """The lines folded at words; continuations are indented by two more columns."""
        for pieces in lines.lines:
            plain = "".join([printable(text) for text, _ in pieces])
            if not self._color and cell_len(plain) <= width:  # as below, in a tenth of the time
                yield plain.rstrip() + "\n"
                continue
            for line in self._folded(pieces, width):
                line.rstrip()
                yield self._styled(line) + "\n"

    def _folded(self, pieces: StyledLine, width: int) -> Iterator[Text]:
        """One line as the lines that it takes; a command that does not fit goes to a line of its own, as it is."""
        text = _assembled(pieces)
        text.plain = plain = UNIT.sub(GLUE, text.plain)
        indent = len(plain) - len(plain.lstrip()) + 2
        if text.cell_len <= width:
            yield text
        elif pieces[-1][1] == COMMAND:
            if len(pieces) > 1:
                yield from self._folded(pieces[:-1], width)
                text = Text(" " * indent) + _assembled([(pieces[-1][0].lstrip(), COMMAND)])
            yield text
        else:
            first = text.wrap(self._console, width)[0]
            behind = plain[len(first.plain) :]  # a space where the first line is full to the last column
            rest = text[len(plain) - len(behind.lstrip()) :].wrap(self._console, max(20, width - indent))
            yield first
            yield from (Text(" " * indent) + line for line in rest)

    def _styled(self, text: Text) -> str:
        text.plain = text.plain.replace(GLUE, " ")
        if not self._color:
            return text.plain
        return "".join(
            _parsed(str(segment.style)).render(segment.text, color_system=ColorSystem.EIGHT_BIT)
            if segment.style
            else segment.text
            for segment in text.render(self._console)
        )


def _assembled(pieces: StyledLine) -> Text:
    return Text.assemble(*((printable(text), style) for text, style in pieces))


def _sections(pen: _Pen, item: Sections, width: int) -> Iterator[str]:
    """Each section with its label before the first line."""
    for section in item.sections:
        label = pen.write(section.label.ljust(_MARGIN), "bold")
        for line in pen.wrapped(Lines(section.lines), max(20, width - _MARGIN)):
            yield label + line
            label = " " * _MARGIN


@cache
def _parsed(style: str) -> Style:
    return Style.parse(style)


@dataclass(frozen=True)
class _ColumnGrid:
    """The columns of a table that are shown, by index, and their widths in cells."""

    columns: Sequence[Column[Any]]
    shown: Sequence[int]
    widths: dict[int, int]

    def lines(self, pen: _Pen, texts: Sequence[str], styles: Sequence[str]) -> Iterator[str]:
        """One row: a line, and more where a column wraps; other texts that are too wide end in an ellipsis."""
        folded = {i: fold(texts[i], self.widths[i]) for i in self.shown if self.columns[i].wraps}
        for number in range(max([1, *map(len, folded.values())])):
            cells = [texts[i] if number == 0 else "" for i in range(len(texts))]
            for i, lines in folded.items():
                cells[i] = lines[number] if number < len(lines) else ""
            yield self._line(pen, cells, styles)

    def _line(self, pen: _Pen, texts: Sequence[str], styles: Sequence[str]) -> str:
        out = []
        for i in self.shown:
            text, pad = texts[i], self.widths[i] - cell_len(texts[i])
            if pad < 0:
                text, pad = set_cell_size(text, self.widths[i] - 1) + "…", 0
            written = pen.write(text, styles[i])
            out.append(" " * pad + written if self.columns[i].right else written + " " * pad)
        return (" " * GAP).join(out).rstrip() + "\n"


@dataclass(frozen=True)
class _TableStyle:
    """The options of tables: columns of the output, explanations of the columns, sizes in bytes."""

    width: int
    explain: bool
    exact: bool

    def cell(self, column: Column[Any], row: object) -> str:
        """The text of a cell."""
        if self.exact and column.bytes is not None:
            return count(column.bytes(row))
        return printable(column.text(row))


_NUMBER: Column[Any] = Column("#", lambda _: "", "number of the row, in the details below", right=True, style="dim")


def _table(pen: _Pen, table: Table[Any], table_style: _TableStyle) -> Iterator[str]:
    if table.title:
        yield pen.write(table.title, "bold") + "\n"
    if not table.rows and not table.hidden and table.empty:
        yield pen.write(table.empty, "dim") + "\n"
        return
    columns, width = [*([_NUMBER] if table.numbered else []), *table.columns], table_style.width
    cells = [[table_style.cell(column, row) for column in columns] for row in table.rows]
    for number, texts in enumerate(cells if table.numbered else (), 1):
        texts[0] = f"#{number}"
    measured = [*cells, *([table_style.cell(column, row) for column in columns] for row in table.beside)]
    needed = [
        max([cell_len(column.title), *(cell_len(row[i]) for row in measured)]) for i, column in enumerate(columns)
    ]
    found = layout(columns, measured, needed, width)
    grid = _ColumnGrid(columns, found.shown, found.widths)
    yield from grid.lines(pen, [column.title for column in columns], ["bold"] * len(columns))
    for row, texts in zip(table.rows, cells, strict=True):
        styles = [column.style(row) if callable(column.style) else column.style for column in columns]
        yield from grid.lines(pen, texts, styles)
    if table.hidden:
        yield pen.write(f"… {count(table.hidden)} more (--all, or --limit N)", "dim") + "\n"
    same = ", ".join(f"{columns[i].title} {cells[0][i]}" for i in found.same)
    left_out = "" if table.goes_on else ", ".join(columns[i].title for i in found.dropped if columns[i].title)
    for label, words in (("in every row above", same), ("not shown at this width", left_out)):
        if words:
            yield from pen.wrapped(Lines([[(f"{label}: {words}", "dim")]]), width)
    if table_style.explain:
        explained = sorted((*found.shown, *found.same))
        lines = [[(f"  {columns[i].title or '*'}: ", "bold"), (columns[i].explain, "dim")] for i in explained]
        yield from pen.wrapped(Lines(lines), width)
