"""One block of a page heap as a JSON record and as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.analyses.blocks.page_heap import PageBlock
    from heapdump.blocks.byte_damage import ByteDamage
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot


_SHOWN = 64
"""Bytes of damage in records."""


def page_detail(snapshot: Snapshot, block: Block) -> PageBlock | None:
    """The node, the pages and the damage of a page-heap block; None for blocks of other heaps."""
    from heapdump.analyses.blocks.page_heap import is_page_block, page_block

    if not is_page_block(block):
        return None
    heap = snapshot.heaps[block.heap]
    return page_block(snapshot.view_of(heap), heap, snapshot.page_nodes(heap), block, snapshot.page_damage(heap, block))


def page_record(detail: PageBlock) -> Record:
    """The JSON record of the detail."""
    virtual, guard = detail.virtual_block, detail.guard
    return {
        "node": None if detail.node is None else hex(detail.node),
        "virtual_block": hex(virtual.start) if virtual else None,
        "virtual_bytes": virtual.size if virtual else None,
        "guard": hex(guard.start) if guard else None,
        "thread": detail.thread,
        "header_in_dump": detail.has_header,
        "damage": [
            {
                "kind": damage.kind, "what": damage.what, "address": hex(damage.address), "length": len(damage.found),
                "expected": damage.expected[:_SHOWN].hex(), "found": damage.found[:_SHOWN].hex(),
            }
            for damage in detail.damage
        ],
    }  # fmt: skip


def page_lines(detail: PageBlock) -> list[list[tuple[str, str]]]:
    """Pages, thread, damaged stamps and fills."""
    lines: list[list[tuple[str, str]]] = []
    if detail.virtual_block and detail.guard:
        span, guard = detail.virtual_block, detail.guard
        thread = f", thread {detail.thread:#x}" if detail.thread else ""
        pages = f"virtual block {span.start:#x}..{span.end:#x} ({text.size(span.size)}), guard page {guard.start:#x}"
        lines.append([(pages + thread, "")])
    lines += [[(f"damaged: {_damage_words(damage)}", "red")] for damage in detail.damage]
    if detail.has_header and not detail.damage:
        lines.append([("stamps and fills hold", "green")])
    elif not detail.has_header and detail.block.entry != detail.block.address:
        why = ": freed memory is inaccessible" if detail.block.state == "free" else ""
        lines.append([(f"its stamps are not in the dump{why}", "dim")])
    return lines


def _damage_words(damage: ByteDamage) -> str:
    place = f"{damage.what} at {damage.address:#x}, {damage.at_least}{text.plural(len(damage.found), 'byte')}"
    return f"{place}: expected {damage.expected[:16].hex(' ')}, found {damage.found[:16].hex(' ')}"
