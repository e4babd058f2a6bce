"""What a command shows: columns with the sentence that `--explain` prints, tables, plain lines, and records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")
Record = dict[str, Any]
"""One JSON object: what a program gets."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """`text` makes the cell; `explain` says how the number was computed, from which structure.

    `rank` 0 columns are always shown; where the width does not suffice the highest ranks go first. A `flexible` column
    is cut with an ellipsis instead, down to so many cells (0: never cut). `style` is a rich style or a function of the row.
    """

    title: str
    text: Callable[[Row], str]
    explain: str
    right: bool = False
    rank: int = 0
    flexible: int = 0
    style: str | Callable[[Row], str] = ""


@dataclass(frozen=True)
class Table(Generic[Row]):
    """Rows under columns. `hidden` more rows exist than are shown."""

    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    title: str = ""
    hidden: int = 0
    empty: str = ""


@dataclass(frozen=True)
class Lines:
    """Plain lines between tables, each a list of (text, rich style) pieces."""

    lines: Sequence[Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Answer:
    """Everything a command has to say.

    `data` makes the JSON document's data (an object, or records one after the other); `records` the records of jsonl and csv, one after the other; `nested` names
    the members of a record's objects, so that every line of a csv has the same columns;
    `parts` what is shown to a person. `gaps` say what is missing: the answer is complete without any.
    """

    command: str
    data: Callable[[], Any]
    records: Callable[[], Iterable[Record]]
    parts: Callable[[], Iterable[Table[Any] | Lines]]
    gaps: Sequence[str] = ()
    notes: Sequence[str] = ()
    nested: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """False when part of the answer is missing."""
        return not self.gaps
