"""Draws tables and lines with rich: aligned, quiet, right at 80 and at 160 columns, whole in a pipe."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from heapdump.render.text import count, printable
from heapdump.render.view import Column, Lines, Table

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2
_PIPE_WIDTH = 100_000
_MIN_FLEXIBLE = 12


def draw(parts: Iterable[Table[Any] | Lines], *, color: bool, width: int, explain: bool) -> Iterable[str]:
    """The text of each part, with line ends. `width` in columns; `color` writes ANSI codes."""
    from rich.console import Console

    for i, part in enumerate(parts):
        out = io.StringIO()
        console = Console(
            file=out, width=width, force_terminal=color, no_color=not color, highlight=False, markup=False, emoji=False,
            color_system="truecolor" if color else None, legacy_windows=False,
        )  # fmt: skip
        if i:
            console.print()
        if isinstance(part, Lines):
            _draw_lines(console, part)
        else:
            _draw_table(console, part, width, explain=explain)
        yield "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


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


def _draw_lines(console: Console, part: Lines) -> None:
    from rich.text import Text

    for pieces in part.lines:
        console.print(Text.assemble(*((printable(text), style) for text, style in pieces)), soft_wrap=False)


def _draw_table(console: Console, part: Table[Any], width: int, *, explain: bool) -> None:
    from rich.padding import Padding
    from rich.table import Table as RichTable
    from rich.text import Text

    cells = [[printable(column.text(row)) for column in part.columns] for row in part.rows]
    shown, dropped = _fitting(part.columns, cells, width)
    if part.title:
        console.print(Text(part.title, "bold"))
    if not part.rows and part.empty:
        console.print(Text(part.empty, "dim"))
        return
    widths = _widths(part.columns, cells, shown, width)
    table = RichTable(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for i in shown:
        column = part.columns[i]
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, width=widths[i])
    for row, texts in zip(part.rows, cells, strict=True):
        table.add_row(*(Text(_cut(texts[i], widths[i]), _style(part.columns[i], row)) for i in shown))
    console.print(table)
    if part.hidden:
        console.print(Text(f"… {count(part.hidden)} more (--all shows them, --limit N as many as you like)", "dim"))
    if dropped:
        console.print(Text(f"not shown at this width: {', '.join(part.columns[i].title for i in dropped)}", "dim"))
    if explain:
        for i in shown:
            title, words = part.columns[i].title or "*", part.columns[i].explain
            console.print(Padding(Text.assemble((f"{title}: ", "bold"), (words, "dim")), (0, 0, 0, 2)))


def _style(column: Column[Any], row: Any) -> str:
    return column.style(row) if callable(column.style) else column.style


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _widths(
    columns: Sequence[Column[Any]], cells: Sequence[Sequence[str]], shown: Sequence[int], width: int
) -> dict[int, int]:
    """The width of each shown column: what it needs, a flexible one at most what is left."""
    full = {i: max([len(columns[i].title), *(len(row[i]) for row in cells)]) for i in shown}
    flexible = [i for i in shown if columns[i].flexible]
    left = width - sum(full[i] for i in shown if i not in flexible) - _GAP * (len(shown) - 1)
    for i in flexible:
        full[i] = max(1, min(full[i], left // len(flexible)))
    return full


def _fitting(columns: Sequence[Column[Any]], cells: Sequence[Sequence[str]], width: int) -> tuple[list[int], list[int]]:
    """(indices of the columns that fit, of those left out): the highest ranks go first."""

    def needed(i: int) -> int:
        full = max([len(columns[i].title), *(len(row[i]) for row in cells)])
        return min(full, _MIN_FLEXIBLE) if columns[i].flexible else full

    shown = list(range(len(columns)))
    dropped: list[int] = []
    while sum(needed(i) + _GAP for i in shown) - _GAP > width:
        droppable = [i for i in shown if columns[i].rank]
        if not droppable:
            break
        worst = max(droppable, key=lambda i: (columns[i].rank, i))
        shown.remove(worst)
        dropped.append(worst)
    return shown, sorted(dropped)
