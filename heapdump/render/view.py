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
    """`text` makes the cell of a row; `explain` says which structure or formula the value comes from.

    Columns of rank 0 are always shown; where the width does not suffice those with the highest ranks go first. The
    cells of a `flexible` column are cut with an ellipsis to this number of terminal cells (0: never cut); those of one
    that `wraps` go on below. One that `folds` and says the same in three rows and more is told once, below the table.
    `style` is a style of rich, or makes one of a row. `bytes`: the cell is this number of bytes, with a unit of its own
    or exact. A column whose cells are all empty is not shown, but for the first one.
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
    """Rows under columns. `hidden`: the number of rows that exist and are not shown; `empty`: the line without rows.

    `numbered`: rows have a first column `#1`, `#2` … that details below refer to.
    """

    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    title: str = ""
    hidden: int = 0
    empty: str = ""
    numbered: bool = False


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
    """Records of which there may be millions; they write themselves faster than one after the other."""

    def __iter__(self) -> Iterator[Record]:
        """The records."""

    def texts(self, line: Callable[[Record], str]) -> Iterator[str]:
        """The lines of all records, many in a text.

        `line` makes the text of one record. It is called for the first one, then for an example of each form.
        """


@dataclass(frozen=True)
class Answer:
    """The answer of a command in all formats; only the format that is asked for is made.

    `data`: the `data` of the JSON document, an object or an iterable of records. `records`: those of jsonl and csv.
    `page`: for a person. `gaps`: lines on what is missing, none for a complete answer; `notes`: other remarks.
    `nested`: member of a record → names of the members of its object, so that every line of a csv has the same
    columns. `question`: the command with the options that change its records, "" for the command alone. `shown`: gaps
    that the page says itself.
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

    @property
    def complete(self) -> bool:
        """False when part of the answer is missing."""
        return not self.gaps
