"""A page heap block in depth, for every command that shows one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.analyses.blocks.page_heap import PageBlock
    from heapdump.blocks.byte_damage import ByteDamage
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot


def page_detail(snapshot: Snapshot, block: Block) -> PageBlock | None:
    """What page heap knows of a block; None for blocks of other heaps."""
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
        "header_in_dump": detail.is_header_there,
        "damage": [
            {
                "kind": wound.kind, "what": wound.what, "address": hex(wound.address), "length": len(wound.found),
                "expected": wound.expected[:64].hex(), "found": wound.found[:64].hex(),
            }
            for wound in detail.wounds
        ],
    }  # fmt: skip


def page_lines(detail: PageBlock) -> list[list[tuple[str, str]]]:
    """Geometry, thread, what of stamps and fills holds."""
    lines: list[list[tuple[str, str]]] = []
    if detail.virtual_block and detail.guard:
        span, guard = detail.virtual_block, detail.guard
        thread = f", thread {detail.thread:#x}" if detail.thread else ""
        lines.append(
            [
                (
                    f"virtual block {span.start:#x}..{span.end:#x} ({text.size(span.size)}), guard page {guard.start:#x}{thread}",
                    "",
                )
            ]
        )
    lines += [[(f"damaged: {_wound(wound)}", "red")] for wound in detail.wounds]
    if detail.is_header_there and not detail.wounds:
        lines.append([("stamps and fills hold", "green")])
    elif not detail.is_header_there and detail.block.entry != detail.block.address:
        lines.append(
            [
                (
                    "its stamps are not in the dump"
                    + (": freed memory is inaccessible" if detail.block.state == "free" else ""),
                    "dim",
                )
            ]
        )
    return lines


def _wound(wound: ByteDamage) -> str:
    shown = text.plural(len(wound.found), "byte")
    return f"{wound.what} at {wound.address:#x}, {shown}: expected {wound.expected[:16].hex(' ')}, found {wound.found[:16].hex(' ')}"
