"""The columns that --columns names: members of the records, as a table and as lines of csv."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

from heapdump.commands.common.fields import fields_of
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.machine import flat_members
from heapdump.render.view import Answer, Column, Record, Table

_HEX_NUMBERS = frozenset({"stack", "free_stack", "id", "offset", "to_offset"})
"""Integers that text prints in hex."""


def chosen_records(answer: Answer, names: Sequence[str]) -> Iterator[Record]:
    """The records of csv with these members only, in this order; members of objects as in csv: `points_to.text`.

    Raises:
        WrongUsage: the records have no member of that name; also where there are no records.
    """
    known = fields_of(answer.question or answer.command)
    is_checked = False
    for record in (answer.lines or answer.records)():
        flat = dict(flat_members(record, answer.nested))
        if not is_checked:
            _check(names, list(dict.fromkeys((*flat, *known))))
            is_checked = True
        yield {name: flat.get(name) for name in names}
    if known and not is_checked:
        _check(names, known)


def chosen_table(answer: Answer, names: Sequence[str], limit: int | None) -> Table[Record]:
    """A table of `chosen_records`, with at most `limit` rows."""
    rest = chosen_records(answer, names)
    shown = list(islice(rest, None if limit is None else min(limit, sys.maxsize)))
    hidden = sum(1 for _ in rest)
    return Table([_column(name, shown) for name in names], shown, hidden=hidden, empty="no rows")


def _check(names: Sequence[str], members: Sequence[str]) -> None:
    for name in names:
        if name not in members:
            close = get_close_matches(name, members, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(members)}"
            raise WrongUsage(f"no column {name!r}; {hint}")


def _column(name: str, rows: Sequence[Record]) -> Column[Record]:
    known = [row[name] for row in rows if row[name] is not None]
    is_size = _is_size(name) and all(isinstance(value, int) for value in known)
    is_right = is_size or (bool(known) and all(map(_is_number, known)))
    return Column(
        name,
        lambda row: text.size(row[name]) or "-" if is_size else _cell(name, row[name]),
        "the member of that name in the JSON",
        right=is_right,
        flexible=0 if is_right else 16,
        wraps=not is_right,
        bytes=(lambda row: row[name]) if is_size else None,
    )


def _is_size(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last in ("size", "bytes") or last.endswith(("_size", "_bytes"))


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and (
        isinstance(value, (int, float)) or (isinstance(value, str) and value.startswith("0x") and " " not in value)
    )


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return hex(value) if name in _HEX_NUMBERS else f"{value:,}"
    if isinstance(value, float):
        return text.share(value) if name.endswith("share") else f"{value:.4g}"
    return str(value)
