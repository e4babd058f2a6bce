"""The type of a block as a JSON record and in words, for `refs`, `retained` and others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.analyses.types.declared_shapes import DeclaredShapes
    from heapdump.analyses.types.typing import BlockTyping
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot


def typing_for(request: Request, snapshot: Snapshot) -> BlockTyping:
    """The types of all blocks, by the PDBs that a request names, too."""
    return snapshot.types.typed(snapshot.namer(request.image_path, request.symbol_path))


def shapes_for(request: Request, snapshot: Snapshot) -> DeclaredShapes | None:
    """What the PDBs that a request names declare; None without one."""
    return snapshot.types.shapes(snapshot.namer(request.image_path, request.symbol_path))


def type_record(typing: BlockTyping, row: int) -> Record | None:
    """The type of a row of the block table; None for a row that is no block of the program, or that nothing tells."""
    from heapdump.analyses.types.content_kind import VAGUE_KINDS

    label = typing.label_of(row)
    if label is None or label.label in VAGUE_KINDS:
        return None
    return {"name": label.label, "short": label.short, "trust": label.trust.value}


def type_words(record: Record | None) -> str:
    """The name in a table: of a structure its short name, which `leaks --group-by structure` describes."""
    return str(record["short"]) if record else ""
