"""Page heaps and their blocks, as `!heap -p` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from heapdump.analyses.blocks.locate import guard_page
from heapdump.blocks.byte_damage import ByteDamage
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.page_nodes import PageNodes
from heapdump.blocks.table import Block
from heapdump.blocks.walk import Walk
from heapdump.process.model import View
from heapdump.spans import Span

if TYPE_CHECKING:
    from heapdump.layouts import Struct

Mode = Literal["full", "light", "full and light", "empty"]


@dataclass(frozen=True, slots=True)
class PageHeapRoot:
    """One page heap.

    Attributes:
        heap: the heap.
        mode: full, light, both, or empty.
        busy_blocks: number of busy blocks.
        busy_bytes: requested bytes of these.
        freed_blocks: number of freed blocks that it still keeps.
        freed_bytes: requested bytes of these.
        virtual_bytes: address space of the full blocks, guard pages included.
        committed_bytes: of the reservations of the page heap and of its light blocks; None without a memory map.
        cost: committed_bytes / busy_bytes; None where one is not known or 0.
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
    """One block of a page heap.

    Attributes:
        block: the block.
        node: address of its _DPH_HEAP_BLOCK; None for light blocks.
        virtual_block: its pages, guard page included; None for light blocks.
        guard: its guard page; None for light blocks.
        thread: id of the thread that allocated or freed it; None for light blocks, and where it is not known.
        damage: its changed stamps and fills.
        has_header: True where its block information is in the dump.
    """

    block: Block
    node: int | None
    virtual_block: Span | None
    guard: Span | None
    thread: int | None
    damage: tuple[ByteDamage, ...]
    has_header: bool


def is_page_block(block: Block) -> bool:
    """True for blocks of a page heap, full or light."""
    return block.kind in (BlockKind.PAGE, BlockKind.LIGHT)


def is_free_stack(block: Block) -> bool:
    """True where the recorded stack is the one that freed the block: for freed blocks of a page heap."""
    return block.state == "free" and is_page_block(block)


def page_heap_roots(heaps: Sequence[Heap], walk: Walk, nodes: Sequence[PageNodes | None]) -> tuple[PageHeapRoot, ...]:
    """Every page heap; `nodes`: of each of `heaps`, None for other kinds."""
    return tuple(_root(h, walk, n) for h, n in zip(heaps, nodes, strict=True) if h.kind == HeapKind.PAGE)


def _root(heap: Heap, walk: Walk, nodes: PageNodes | None) -> PageHeapRoot:
    count = walk.counts.get(heap.index)
    full = list(count.of(BlockKind.PAGE)) if count else []
    light = list(count.of(BlockKind.LIGHT)) if count else []
    committed = heap.committed_bytes
    if committed is not None:
        committed += sum(kind.occupied_bytes for kind in light)
    busy_bytes = count.busy_bytes if count else 0
    mode: Mode = "full and light" if full and light else "full" if full else "light" if light else "empty"
    return PageHeapRoot(
        heap, mode, count.busy_blocks if count else 0, busy_bytes, count.free_blocks if count else 0,
        count.free_bytes if count else 0, int((nodes.end - nodes.start).sum()) if nodes is not None else 0,
        committed, committed / busy_bytes if committed is not None and busy_bytes else None,
    )  # fmt: skip


def page_block(
    view: View, heap: Heap, nodes: PageNodes | None, block: Block, damage: Sequence[ByteDamage]
) -> PageBlock:
    """A block with the facts of its node and of its block information; `damage`: its changed stamps and fills."""
    size = information.size if (information := information_struct(view, heap)) is not None else 0
    has_header = bool(size) and view.space.try_read(block.address - size, size) is not None
    i = nodes.at(block.address) if nodes is not None and block.kind == BlockKind.PAGE else None
    if nodes is None or i is None:
        return PageBlock(block, None, None, None, None, tuple(damage), has_header)
    return PageBlock(
        block, int(nodes.node[i]), Span(int(nodes.start[i]), int(nodes.end[i])), guard_page(block),
        int(nodes.thread[i]) or None, tuple(damage), has_header,
    )  # fmt: skip


def information_struct(view: View, heap: Heap) -> Struct | None:
    """_DPH_BLOCK_INFORMATION of the heap's layout; None where the layout is not known or has none."""
    layout = next((layout for layout in view.layouts if layout.name == heap.layout), None)
    return layout["_DPH_BLOCK_INFORMATION"] if layout and "_DPH_BLOCK_INFORMATION" in layout else None
