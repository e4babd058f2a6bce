"""JSON, JSON Lines and CSV: the same records, for programs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from heapdump.render.text import printable
from heapdump.render.view import Answer, ManyRecords, Record

SCHEMA = "heapdump/1"


_ESCAPE = re.compile(r"\\(?:u(d[89ab]..)\\u(d[c-f]..)|u(d[89a-f]..)|.)")
"""An escape of a JSON text: a surrogate pair, half of one, or any other."""


def encoded(value: Any, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """A value as JSON, ASCII only. Half of a surrogate pair becomes text, as in tables: strict readers refuse it."""
    text = json.dumps(value, indent=indent, separators=separators)
    if "\\ud" not in text:
        return text
    return _ESCAPE.sub(lambda found: f"\\\\u{found[3]}" if found[3] else found[0], text)


def json_document(answer: Answer, tool: str, dump: Record | list[Record]) -> Iterator[str]:
    """One JSON document in the envelope. ASCII only, so that nothing a dump contains reaches a terminal raw.

    `dump`: of the envelope; a list of them becomes `dumps`.
    """
    document = {
        "schema": SCHEMA,
        "command": answer.command,
        "tool": tool,
        ("dumps" if isinstance(dump, list) else "dump"): dump,
        "complete": answer.complete,
        "notes": list(dict.fromkeys((*answer.gaps, *answer.notes))),
    }
    yield encoded(document, indent=1)[:-2] + ',\n "data": '
    data = answer.data()
    if isinstance(data, dict):
        yield encoded(data, indent=1).replace("\n", "\n ")
    else:
        # one record a line, each encoded on its own: quick, and never the whole document in memory
        texts = _texts(data, lambda record: ",\n  " + encoded(record))
        first = next(texts, None)
        if first is None:
            yield "[]"
        else:
            yield "[" + first[1:]
            yield from texts
            yield "\n ]"
    yield "\n}\n"


def _texts(records: Iterable[Record], line: Callable[[Record], str]) -> Iterator[str]:
    """The lines of all records, one or many in a text."""
    return records.texts(line) if isinstance(records, ManyRecords) else map(line, records)


def json_lines(records: Iterable[Record]) -> Iterator[str]:
    """One record a line, streamed."""
    return _texts(records, lambda record: encoded(record) + "\n")


def comma_separated(
    records: Iterable[Record], nested: Mapping[str, Sequence[str]], fields: Sequence[str] = (), *, raw: bool = False
) -> Iterator[str]:
    """A header and a line for each record.

    Frames are joined by ` < `, the innermost first, other lists by `|`; objects become `name.member` columns, or JSON.
    `fields`: the columns of an answer without records; further columns that not every record has. A text that a
    spreadsheet would take for a formula gets an apostrophe in front, unless `raw`.
    """
    lines = _CsvLines(nested, fields, _cell if raw else _harmless_cell)
    yield from _texts(records, lines.line)
    if not lines.header and fields:
        yield ",".join(fields) + "\n"


class _CsvLines:
    """Writes records as lines of csv, the header before the first."""

    def __init__(
        self, nested: Mapping[str, Sequence[str]], fields: Sequence[str], cell: Callable[[object], object]
    ) -> None:
        """`cell` makes a cell of a value; `nested` and `fields` are as in `comma_separated`."""
        self.header: list[str] = []
        self._nested, self._fields, self._cell = nested, fields, cell
        self._out = io.StringIO()
        self._writer = csv.writer(self._out, lineterminator="\n")

    def line(self, record: Record) -> str:
        """The line of a record."""
        flat = dict(flat_members(record, self._nested))
        if not self.header:
            self.header = list(dict.fromkeys((*flat, *(name for name in self._fields if name not in flat))))
            self._writer.writerow(self.header)
        self._writer.writerow([self._cell(flat.get(name)) for name in self.header])
        text = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return text


def flat_members(record: Record, nested: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Any]]:
    """(column, value) of each cell of a record's line; `nested` as in `comma_separated`."""
    for name, value in record.items():
        if name in nested:
            yield from ((f"{name}.{member}", (value or {}).get(member)) for member in nested[name])
        elif isinstance(value, (list, tuple)) and value and all(map(_is_frame, value)):
            yield name, " < ".join(map(_frame_text, value))
        elif isinstance(value, (list, tuple)):
            yield name, "|".join(_text(item) for item in value)
        elif isinstance(value, dict):
            yield name, _text(value)
        else:
            yield name, value


def _is_frame(item: object) -> bool:
    return isinstance(item, dict) and {"address", "module", "symbol", "offset"} <= item.keys()


def _frame_text(frame: Record) -> str:
    """`halcon!HXmalloc+0x8b`, `module+0x1234`, or `0x7fe83e3bcf6`, with the source line where it is known."""
    if frame["module"] is None:
        return str(frame["address"])
    symbol, offset = frame["symbol"], frame["offset"] or 0
    line = f" [{frame['file']}:{frame['line']}]" if frame.get("file") else ""
    where = f"{frame['module']}!{symbol}" if symbol else frame["module"]
    return f"{where}{f'+{offset:#x}' if offset or not symbol else ''}{line}"


def _text(item: Any) -> str:
    """An item of a list: an object as JSON."""
    return encoded(item, separators=(",", ":")) if isinstance(item, (dict, list)) else str(item)


def _cell(value: Any) -> Any:
    return "" if value is None else printable(value) if isinstance(value, str) else value


_FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""Where a spreadsheet sees a formula begin: in a new cell, also where `;` separates cells. Full-width signs count."""

_NUMBER = re.compile(r"[+-]?(\d[\d,.]*(e[+-]?\d+)?|0x[0-9a-f]+)", re.IGNORECASE | re.ASCII)


def _harmless_cell(value: Any) -> Any:
    """`=1+1` becomes `'=1+1`; numbers stay numbers."""
    text = _cell(value)
    return text if not isinstance(text, str) or _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", text)
