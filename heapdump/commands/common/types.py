"""The type of a block as a JSON record and in words, for `refs`, `retained` and others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.snapshot import Snapshot


def type_record(snapshot: Snapshot, row: int) -> Record | None:
    """The type of a row of the block table; None for a row that is no block of the program, or that nothing tells."""
    from heapdump.analyses.types.content_kind import VAGUE_KINDS

    label = snapshot.types.typing.label_of(row)
    if label is None or label.label in VAGUE_KINDS:
        return None
    return {"name": label.label, "short": label.short, "trust": label.trust.value}


def type_words(record: Record | None) -> str:
    """The name in a table: of a structure its short name, which `leaks --group-by structure` describes."""
    return str(record["short"]) if record else ""
