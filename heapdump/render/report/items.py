"""Items of answers for the template: cells of tables, styles of terminals as CSS classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heapdump.render.layout import GAP, layout
from heapdump.render.report.content import Part
from heapdump.render.text import printable
from heapdump.render.view import COMMAND, Column, Lines, PageItem, Sections, StyledLine, Table

_WIDTH = 126
"""Characters of a table, with two between columns, for which the page has room."""

_PHONE_WIDTH = 44
"""The same on a phone of 390 pixels."""

_TEXT_WIDTH = 16
"""Characters below which a column of running text is too narrow to read."""

_INDENTED, _BAR = ("  ", "\t", "=="), "█"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: its text, and CSS classes separated by spaces."""

    text: str
    css: str


@dataclass(frozen=True, slots=True)
class CellRow:
    """The cells of a row, and the command about the row; "" for none."""

    cells: tuple[Cell, ...]
    command: str


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table as the page shows it.

    Attributes:
        columns: the columns that it has room for.
        rows: the rows.
        same: line with the columns that have one text in every row; "" for none.
        left_out: line with the titles of the columns without room; "" for none.
        wide: for each column, True where a phone has no room for it.
        wide_only: line with the titles of these; "" for none.
        is_card: True where a phone gives the last column a line of its own, below the others.
    """

    columns: tuple[Column[Any], ...]
    rows: tuple[CellRow, ...]
    same: str
    left_out: str
    wide: tuple[bool, ...]
    wide_only: str
    is_card: bool


def item_kind(item: PageItem) -> str:
    """The word by which the template draws an item."""
    if isinstance(item, Table):
        return "table"
    return "sections" if isinstance(item, Sections) else "lines"


def table_grid(table: Table[Any], part: Part) -> PageTable:
    """The columns that the page has room for, and the rows as text."""
    columns = table.columns
    texts = [[printable(column.text(row)) for column in columns] for row in table.rows]
    needed = [max([len(column.title), *(len(row[i]) for row in texts)]) for i, column in enumerate(columns)]
    found, narrow = (layout(columns, texts, needed, width) for width in (_WIDTH, _PHONE_WIDTH))
    wide = tuple(i not in narrow.shown for i in found.shown)
    rows = []
    for row, words in zip(table.rows, texts, strict=True):
        shown = zip(found.shown, wide, strict=True)
        cells = tuple(Cell(words[i], f"{_css(columns[i], row)}{' w' * is_wide}".strip()) for i, is_wide in shown)
        rows.append(CellRow(cells, part.row_command(row) if part.row_command else ""))
    same = ", ".join(f"{columns[i].title} {texts[0][i]}" for i in found.same)
    left_out = ", ".join(columns[i].title for i in found.dropped if columns[i].title)
    titles = (columns[i].title for i, is_wide in zip(found.shown, wide, strict=True) if is_wide)
    shown_columns = tuple(columns[i] for i in found.shown)
    is_card = _is_card(shown_columns, [needed[i] for i in found.shown], wide)
    return PageTable(shown_columns, tuple(rows), same, left_out, wide, ", ".join(filter(None, titles)), is_card)


def _is_card(columns: Sequence[Column[Any]], needed: Sequence[int], wide: Sequence[bool]) -> bool:
    """True where a phone has no room for the last column beside the others, and it is one of running text."""
    beside = sum(size + GAP for size, is_wide in zip(needed[:-1], wide[:-1], strict=True) if not is_wide)
    return (columns[-1].wraps or columns[-1].flexible > 0) and beside + min(needed[-1], _TEXT_WIDTH) > _PHONE_WIDTH


def _css(column: Column[Any], row: Any) -> str:
    style = column.style(row) if callable(column.style) else column.style
    words = ("n" if column.right else "", "fx" if column.flexible or column.wraps else "", css_of_style(style))
    return " ".join(filter(None, words))


def item_runs(part: Part) -> list[list[PageItem]]:
    """The items one by one; where the part folds its stacks, those that stand in a row together."""
    out: list[list[PageItem]] = []
    was_stack = False
    for item in part.items:
        is_stack = part.folds_stacks and isinstance(item, Lines) and is_preformatted(item)
        if is_stack and was_stack:
            out[-1].append(item)
        else:
            out.append([item])
        was_stack = is_stack
    return out


def css_of_style(style: str) -> str:
    """CSS classes for a style of rich: `s-red s-bold`."""
    return " ".join(f"s-{word}" for word in style.split() if word.isalnum())


def code_words(text: str) -> str:
    """A command without the arrow before it."""
    return printable(text).strip().removeprefix("→").strip()


def is_preformatted(lines: Lines) -> bool:
    """True for lines that are aligned with spaces: hex dumps, stacks."""
    return any(is_aligned(line) for line in lines.lines)


def is_aligned(line: StyledLine) -> bool:
    """True for a line that is aligned with spaces, or draws a bar, of no length too."""
    texts = [text for text, style in line if style != COMMAND and text]
    return bool(texts) and (texts[0].startswith(_INDENTED) or any(_BAR in text or text.isspace() for text in texts[1:]))
