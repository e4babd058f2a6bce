"""The answer of `retained` about a whole process, kept in the index: the blocks that retain most, the leak suspects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from heapdump.analyses.graph.leak_suspects import LeakSuspect, sentence, suspects_from, to_record
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.retained import Retained
from heapdump.analyses.graph.unreachable_report import missing_evidence
from heapdump.blocks.stored_checks import require_texts, require_types
from heapdump.trust import Trust

STORED = 100
"""The most blocks of an answer in the index."""

_LARGEST = 1 << 62
"""No sum of bytes or blocks is as large."""


@dataclass(frozen=True, slots=True)
class RetainingBlock:
    """A block and the memory that it retains.

    Attributes:
        row: of the block table.
        start: address of the program's first byte.
        size: requested bytes.
        bytes: retained bytes, its own included.
        blocks: retained blocks, itself included.
        dominator: start of its immediate dominator; None where only roots dominate it.
        type: (name, short name, trust); None where it is not known.
    """

    row: int
    start: int
    size: int
    bytes: int
    blocks: int
    dominator: int | None
    type: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class PlacedSuspect:
    """A leak suspect, its sentence, and the starts of the block and of its accumulation point; None for none."""

    suspect: LeakSuspect
    text: str
    start: int | None
    point: int | None


@dataclass(frozen=True, slots=True)
class RetainedTop:
    """The answer about all blocks.

    Attributes:
        total_bytes: bytes of all blocks that roots hold.
        total_blocks: number of these blocks.
        count: number of blocks that no block dominates.
        blocks: the first of them, the one that retains most first.
        suspects: the one that retains most first.
        evidence: sentences on bytes that the dump does not hold.
    """

    total_bytes: int
    total_blocks: int
    count: int
    blocks: tuple[RetainingBlock, ...]
    suspects: tuple[PlacedSuspect, ...]
    evidence: tuple[str, ...]


def retained_top(graph: PointerGraph, tree: Retained, suspects: Sequence[LeakSuspect], most: int) -> RetainedTop:
    """The answer with at most `most` blocks, without types."""
    blocks = tuple(retaining_block(graph, tree, node) for node in tree.top(most).tolist())
    placed = tuple(placed_suspect(graph, suspect) for suspect in suspects)
    count = tree.count_below(None)
    return RetainedTop(tree.total, int(tree.blocks[0]), count, blocks, placed, missing_evidence(graph))


def retaining_block(graph: PointerGraph, tree: Retained, node: int) -> RetainingBlock:
    """One block, without its type."""
    size, blocks = tree.of(node)
    span, above = graph.span(node), tree.dominator_of(node)
    dominator = None if above is None else graph.span(above).start
    return RetainingBlock(int(graph.rows[node]), span.start, span.size, size, blocks, dominator)


def placed_suspect(graph: PointerGraph, suspect: LeakSuspect) -> PlacedSuspect:
    """A suspect with the addresses of its blocks."""
    start, point = (
        None if node is None else graph.span(node).start for node in (suspect.node, suspect.accumulation_point)
    )
    return PlacedSuspect(suspect, sentence(graph, suspect), start, point)


def top_to_record(top: RetainedTop) -> dict[str, Any]:
    """The answer as a JSON object, which `top_from_record` reads."""
    return (
        asdict(top)
        | to_record([one.suspect for one in top.suspects])
        | {"placed": [(one.text, one.start, one.point) for one in top.suspects]}
    )


def top_from_record(record: dict[str, Any]) -> RetainedTop:
    """The answer that `top_to_record` wrote. The reader of the index checks that rows exist (`Store.counts`).

    Raises:
        ValueError, TypeError, LookupError: it is not what `top_to_record` writes.
    """
    suspects = zip(suspects_from(record), record.pop("placed"), strict=True)
    blocks = tuple(
        RetainingBlock(**block | {"type": block["type"] and tuple(block["type"])}) for block in record["blocks"]
    )
    require_texts(record["evidence"], "evidence")
    members = {
        "blocks": blocks,
        "suspects": tuple(PlacedSuspect(one, *place) for one, place in suspects),
        "evidence": tuple(record["evidence"]),
    }
    found = RetainedTop(**record | members)
    require_types(found)
    _require_plausible(found)
    return found


def _require_plausible(top: RetainedTop) -> None:
    """Makes sure that the numbers fit together.

    Raises:
        ValueError: they do not.
    """
    numbers = [top.total_bytes, top.total_blocks, top.count]
    for block in top.blocks:
        numbers += [block.start, block.size, block.bytes, block.blocks, block.dominator or 0]
    for one in top.suspects:
        suspect, structure = one.suspect, one.suspect.structure
        numbers += [suspect.bytes, suspect.blocks, suspect.count, one.start or 0, one.point or 0]
        numbers += [structure.elements, structure.size] if structure else []
    if not all(0 <= number < _LARGEST for number in numbers):
        raise ValueError("a number is out of range")
    held = [(one.bytes, one.blocks) for one in top.blocks]
    held += [(one.suspect.bytes, one.suspect.blocks) for one in top.suspects]
    if any(size > top.total_bytes or blocks > top.total_blocks for size, blocks in held):
        raise ValueError("a block retains more than all blocks")
    if len(top.blocks) != min(top.count, STORED) or not all(0 <= one.suspect.share <= 1 for one in top.suspects):
        raise ValueError("another number of blocks, or a share, is expected")
    for block in top.blocks:
        if block.type is not None:
            Trust(block.type[2])
