"""Page heaps and their blocks, as `!heap -p` asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from heapdump.analyses.blocks.select import guard_page
from heapdump.blocks.byte_damage import ByteDamage
from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import BlockKind, HeapKind
from heapdump.blocks.page_nodes import PageNodes
from heapdump.blocks.table import Block
from heapdump.blocks.walk import Walk
from heapdump.process.model import View
from heapdump.spans import Span

if TYPE_CHECKING:
    from heapdump.layouts import Struct

Mode = Literal["full", "light", "full and light", "empty"]


@dataclass(frozen=True, slots=True)
class Root:
    """One page heap; `cost` = committed / requested bytes.

    Bytes: `busy_bytes` requested; `virtual_bytes` of address space that its blocks take, guard pages included;
    `committed_bytes` of its reservations (None: no memory map) and of its blocks in the ordinary heap behind it.
    """

    heap: Heap
    mode: Mode
    busy_blocks: int
    busy_bytes: int
    freed_blocks: int
    freed_bytes: int
    virtual_bytes: int
    committed_bytes: int | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class PageBlock:
    """One block in depth. `node`, `virtual_block`, `guard`, `thread`: of full blocks; `trace` allocated or freed it."""

    block: Block
    node: int | None
    virtual_block: Span | None
    guard: Span | None
    thread: int | None
    wounds: tuple[ByteDamage, ...]
    is_header_there: bool


def is_page_block(block: Block) -> bool:
    """True for blocks of a page heap, full or light."""
    return block.kind in (BlockKind.PAGE, BlockKind.LIGHT)


def is_free_stack(block: Block) -> bool:
    """True where the recorded stack is the one that freed the block: of freed blocks under page heap."""
    return block.state == "free" and is_page_block(block)


def roots(heaps: Sequence[Heap], walk: Walk, nodes: Sequence[PageNodes | None]) -> tuple[Root, ...]:
    """Every page heap; `nodes` for each of `heaps`."""
    return tuple(_root(h, walk, n) for h, n in zip(heaps, nodes, strict=True) if h.kind == HeapKind.PAGE)


def _root(heap: Heap, walk: Walk, nodes: PageNodes | None) -> Root:
    count = walk.counts.get(heap.index)
    full = list(count.of(BlockKind.PAGE)) if count else []
    light = list(count.of(BlockKind.LIGHT)) if count else []
    committed = heap.committed_bytes
    if committed is not None:
        committed += sum(kind.occupied_bytes for kind in light)
    busy_bytes = count.busy_bytes if count else 0
    mode: Mode = "full and light" if full and light else "full" if full else "light" if light else "empty"
    return Root(
        heap, mode, count.busy_blocks if count else 0, busy_bytes, count.free_blocks if count else 0,
        count.free_bytes if count else 0, int((nodes.end - nodes.start).sum()) if nodes is not None else 0,
        committed, committed / busy_bytes if committed is not None and busy_bytes else None,
    )  # fmt: skip


def page_block(
    view: View, heap: Heap, nodes: PageNodes | None, block: Block, wounds: Sequence[ByteDamage]
) -> PageBlock:
    """The block with everything that page heap knows of it; `wounds`: the damaged places of it."""
    information = information_struct(view, heap)
    i = nodes.at(block.address) if nodes is not None and block.kind == BlockKind.PAGE else None
    found = tuple(wounds)
    there = (
        information is not None and view.space.try_read(block.address - information.size, information.size) is not None
    )
    if nodes is None or i is None:
        return PageBlock(block, None, None, None, None, found, there)
    return PageBlock(
        block, int(nodes.node[i]), Span(int(nodes.start[i]), int(nodes.end[i])), guard_page(block),
        int(nodes.thread[i]) or None, found, there,
    )  # fmt: skip


def information_struct(view: View, heap: Heap) -> Struct | None:
    """_DPH_BLOCK_INFORMATION of this heap's layout; None where it is not known."""
    layout = next((layout for layout in view.layouts if layout.name == heap.layout), None)
    return layout["_DPH_BLOCK_INFORMATION"] if layout and "_DPH_BLOCK_INFORMATION" in layout else None
