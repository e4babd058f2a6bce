"""Rows as a Parquet file, written by pyarrow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from heapdump.render.machine import encoded
from heapdump.render.view import Record

_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
"""The smallest and the largest number of an int64 column."""

_HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: a byte of a file name that is no UTF-8, or damaged UTF-16."""


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """Rows as columns can hold them.

    Attributes:
        rows: one value a column: members of nested members are columns of their own, `incident_bug`; in text, half of a
            surrogate pair is escaped as in JSON, `\\udcff`; null instead of a number outside int64.
        too_large: (number of the row, column) of each such number.
    """

    rows: list[dict[str, Any]]
    too_large: list[tuple[int, str]]


def parquet_rows(rows: Sequence[Record], nested: Mapping[str, Sequence[str]]) -> ParquetRows:
    """The rows for a Parquet file. `nested`: member whose value is an object → that object's members."""
    found = ParquetRows([dict(_columns(row, nested)) for row in rows], [])
    for number, row in enumerate(found.rows):
        for name, value in row.items():
            if isinstance(value, (list, dict)):  # a row of an edited file of results
                row[name] = encoded(value)
            elif isinstance(value, str):
                row[name] = _HALF_PAIR.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
            elif isinstance(value, int) and not _LOWEST <= value <= _HIGHEST:
                row[name] = None
                found.too_large.append((number, name))
    return found


def parquet_writer() -> Callable[[list[dict[str, Any]], BinaryIO], None]:
    """What writes rows to a stream.

    Raises:
        ImportError: pyarrow is missing.
    """
    import pyarrow
    import pyarrow.parquet

    return lambda rows, stream: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)


def _columns(row: Record, nested: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name in nested:
            yield from ((f"{name}_{part}", value[part] if value else None) for part in nested[name])
        else:
            yield name, value
