"""Recorded stacks of blocks: frames as JSON records and as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.blocks.table import Block
    from heapdump.commands.common.request import Request
    from heapdump.process.symbols.namer import Frame
    from heapdump.snapshot import Snapshot

_NOT_RECORDED = {
    True: "it was allocated by an unknown stack: page heap keeps the one that freed it",
    False: "no allocation stack was recorded",
}


def stack_number(snapshot: Snapshot, block: Block) -> int:
    """The number of the stack that allocated the block, or freed it (`is_free_stack`); 0 where none is recorded."""
    import numpy as np

    return int(snapshot.stacks.numbers(np.array([block.row], np.int64))[0])


def place_name(request: Request, snapshot: Snapshot, address: int) -> str:
    """The best name of a code address: `module!symbol+0x8b`, `module+0x1234`, or the bare address."""
    return str(snapshot.namer(request.image_path, request.symbol_path).name(address, 0))


def frame_record(frame: Frame) -> Record:
    """A frame (interface.md, F)."""
    return {
        "address": hex(frame.address),
        "module": frame.module,
        "symbol": frame.symbol,
        "offset": frame.offset,
        "file": frame.file,
        "line": frame.line,
        "trust": frame.trust,
        **({"note": frame.note} if frame.note else {}),
        **({"signature": frame.signature} if frame.signature else {}),
    }


def frames_of(request: Request, snapshot: Snapshot, block: Block, stack: int | None = None) -> list[Frame]:
    """The frames of a stack, by default of the block's own, innermost first; none where none is recorded."""
    stack = stack_number(snapshot, block) if stack is None else stack
    namer = snapshot.namer(request.image_path, request.symbol_path)
    addresses = snapshot.stacks.frames(snapshot.heaps[block.heap], stack)
    return [frame for address in addresses for frame in namer.frames(address)]


def stack_lines(request: Request, snapshot: Snapshot, block: Block) -> list[list[tuple[str, str]]]:
    """`freed by` or `allocated by` with a line for each frame; a line with the reason where the stack is not known."""
    from heapdump.analyses.blocks.page_heap import is_free_stack

    is_free = is_free_stack(block)
    frames = frames_of(request, snapshot, block)
    number = stack_number(snapshot, block)
    verb = "freed" if is_free else "allocated"
    lines: list[list[tuple[str, str]]] = []
    if frames:
        lines = [[(f"{verb} by stack {number:#x}:", "bold")], *([(f"  {frame}", "")] for frame in frames)]
    elif number:
        lines = [[(f"{verb} by stack {number:#x}, whose record is damaged or not in the dump", "dim")]]
    if is_free or not number:
        lines.append([(_NOT_RECORDED[is_free], "dim")])
    return lines
