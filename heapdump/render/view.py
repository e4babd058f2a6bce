"""The answer of a command as data: records for programs, and a page of tables and lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from heapdump.render import text

Row = TypeVar("Row")
Record = dict[str, Any]
"""One JSON object."""

COMMAND = "command"
"""Style of a command that can be pasted. It is never folded; where it does not fit, it gets a line of its own."""

StyledLine = Sequence[tuple[str, str]]
"""A line as pieces of (text, style of rich, or COMMAND). A COMMAND is the last piece."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a table. A column whose cells are all empty is not shown, except for the first one.

    Attributes:
        title: its title.
        text: makes the cell of a row.
        explain: the structure or formula that the value comes from.
        right: True to align to the right.
        rank: 0 for a column that is always shown; where the width does not suffice the highest rank is left out first.
        flexible: terminal cells to which its texts are cut, with an ellipsis; 0 for never.
        style: style of rich, or a function that makes one of a row.
        wraps: True where a text that is too wide goes on in the next line.
        folds: True where a text that is the same in three rows or more is written once, below the table.
        bytes: gives the bytes of a row, which are printed with a unit or exactly; None for other columns.
    """

    title: str
    text: Callable[[Row], str]
    explain: str
    right: bool = False
    rank: int = 0
    flexible: int = 0
    style: str | Callable[[Row], str] = ""
    wraps: bool = False
    folds: bool = False
    bytes: Callable[[Row], int | None] | None = None


def size_column(title: str, bytes_: Callable[[Row], int | None], explain: str, *, rank: int = 0) -> Column[Row]:
    """A column of sizes: `43.24 kB`, with --bytes `44,280`; empty for None."""
    return Column(title, lambda row: text.size(bytes_(row)), explain, right=True, rank=rank, bytes=bytes_)


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A table.

    Attributes:
        columns: its columns.
        rows: its rows.
        title: line above it; "" for none.
        hidden: number of rows that exist and are not shown.
        empty: line that stands for a table without rows.
        numbered: True for a first column `#1`, `#2` … that details below refer to.
        beside: rows of all tables of a page that look alike: they have the same columns, of the same widths.
        goes_on: True where a table that looks alike follows: the columns that do not fit are named below that one.
    """

    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    title: str = ""
    hidden: int = 0
    empty: str = ""
    numbered: bool = False
    beside: Sequence[Row] = ()
    goes_on: bool = False


@dataclass(frozen=True)
class Lines:
    """Plain lines between tables."""

    lines: Sequence[StyledLine]


@dataclass(frozen=True)
class Section:
    """Lines behind a label in the left margin."""

    label: str
    lines: Sequence[StyledLine]


@dataclass(frozen=True)
class Sections:
    """Sections one below the other, without empty lines between them."""

    sections: Sequence[Section]


PageItem = Table[Any] | Lines | Sections


@runtime_checkable
class ManyRecords(Protocol):
    """Records, perhaps millions, whose texts are made many at a time."""

    def __iter__(self) -> Iterator[Record]:
        """The records."""

    def texts(self, line: Callable[[Record], str]) -> Iterator[str]:
        """The lines of all records, many in a text.

        `line` makes the text of one record. It is called for the first one, then for an example of each form.
        """


@dataclass(frozen=True)
class Answer:
    """The answer of a command in all formats; only the format that is asked for is made.

    Attributes:
        command: name of the command.
        data: gives the `data` of the JSON document, an object or an iterable of records.
        records: gives the records of jsonl and csv.
        page: gives tables and lines for a person.
        gaps: lines on what is missing; () for a complete answer.
        notes: other remarks.
        nested: member of a record → names of the members of its object, so that every line of a csv has the same
            columns.
        question: the command with the options that change its records; "" for the command alone.
        shown: those of `gaps` that the page itself says.
        lines: gives the records of csv, where these are not `records`; None where they are.
    """

    command: str
    data: Callable[[], Any]
    records: Callable[[], Iterable[Record]]
    page: Callable[[], Iterable[PageItem]]
    gaps: Sequence[str] = ()
    notes: Sequence[str] = ()
    nested: Mapping[str, Sequence[str]] = field(default_factory=dict)
    question: str = ""
    shown: Sequence[str] = ()
    lines: Callable[[], Iterable[Record]] | None = None

    @property
    def complete(self) -> bool:
        """False when part of the answer is missing."""
        return not self.gaps
