"""The holders of a block as a tree: below each one those that hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.render.view import Record

_INDENT = "  "


def holder_tree(rows: Sequence[Record]) -> list[Record]:
    """The records of `refs --depth`, each holder before its own holders, which are listed once for each holder."""
    below: dict[tuple[int, str], list[Record]] = {}
    for row in rows:
        below.setdefault((row["level"], row["to"]), []).append(row)

    def branch(level: int, target: str) -> Iterator[Record]:
        """The pointers to a block, each with those to the block that it lies in."""
        for row in below.pop((level, target), ()):
            yield row
            if row["block"] is not None:
                yield from branch(level + 1, row["block"])

    return [
        row for target in dict.fromkeys(row["to"] for row in rows if row["level"] == 1) for row in branch(1, target)
    ]


def holder_words(row: Record) -> str:
    """A root, or a block and where in it the pointer lies; indented by its level."""
    place = row["root"] or f"{row['block']}+{row['offset']:#x}"
    return f"{_INDENT * (row['level'] - 1)}{place}"
