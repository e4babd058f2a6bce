"""`block ADDRESS`: what is at an address, and what owns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.blocks import BlockRecorder, block_columns, crt_blocks
from heapdump.commands.common.frames import frame_record, frames_of, stack_lines, stack_number
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.page_block import page_detail, page_lines, page_record
from heapdump.commands.common.request import Request, dump_command
from heapdump.render import text
from heapdump.render.view import Answer, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from heapdump.analyses.blocks.locate import Located
    from heapdump.analyses.types.content import Content
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot

_DOUBTS = {
    "derived": "it lies behind damage, or its header is damaged: what is said of it follows from what is whole",
    "guess": "its header is damaged, or not in the dump: its state or its size is a guess",
}
_RELATIONS = {
    "user": "inside the block", "header": "in the header of the block", "slack": "behind the bytes that were asked for",
    "free": "in a free block", "outside": "in no block", "guard": "in a guard page",
}  # fmt: skip


@dump_command("block", takes_address=True)
def command(request: Request, address: int) -> int:
    """What is at an address and what owns it, as !heap -p -a and !heap -x.

    \b
    heapdump block crash.dmp 0x43500060
    heapdump -d crash.dmp block 00000000`43500060
    """
    from heapdump.analyses.blocks.locate import locate

    request.refuse_sorting("block")
    with request.open() as snapshot:
        found = locate(snapshot.walk.table, snapshot.process.space, address)
        answer = Answer(
            "block",
            data=lambda: _record(request, snapshot, found, address),
            records=lambda: [_record(request, snapshot, found, address)],
            page=lambda: _page(request, snapshot, found, address),
            gaps=walk_gaps(snapshot),
        )
        return request.emit(snapshot, answer)


def _content(snapshot: Snapshot, found: Located) -> Content | None:
    from heapdump.analyses.types.content import content_of

    if found.block is None:
        return None
    view = snapshot.view_of(snapshot.heaps[found.block.heap])
    return content_of(snapshot.process, view, snapshot.walk.table, found.block.row)


def _content_record(content: Content) -> Record:
    found = content.class_name
    return {
        "preview": content.data.hex(),
        "guess": content.guess,
        "class": None
        if found is None
        else {"name": found.name, "decorated": found.decorated, "module": found.module.name},
    }


def _record(request: Request, snapshot: Snapshot, found: Located, address: int) -> Record:
    from heapdump.analyses.blocks.page_heap import is_free_stack

    recorder, block = BlockRecorder(snapshot), found.block
    names = ("address", "entry", "heap", "segment", "kind", "state", "size", "entry_size", "flags", "stack", "trust")
    record: Record = recorder(block) if block else dict.fromkeys(names)
    if block is None:
        record |= {"address": hex(address), "flags": []}
    content = _content(snapshot, found)
    detail = page_detail(snapshot, block) if block else None
    is_free = block is not None and is_free_stack(block)
    frames = [frame_record(frame) for frame in frames_of(request, snapshot, block)] if block else []
    return record | {
        "offset": found.offset,
        "relation": found.relation,
        "frames": [] if is_free else frames,
        "neighbours": [recorder(b) for b in found.neighbours],
        "content": _content_record(content) if content else None,
        **({"free_frames": frames} if is_free else {}),
        **({"page": page_record(detail)} if detail else {}),
    }


def _crt_lines(snapshot: Snapshot, block: Block) -> list[list[tuple[str, str]]]:
    """What the CRT's debug heap says, in its own words."""
    import numpy as np

    from heapdump.analyses.allocated.crt import data_line

    found = crt_blocks(snapshot, np.array([block.row], np.int64)).get(block.row)
    if found is None:
        return []
    words = [[("CRT debug heap: ", "bold"), (f"{found.words}. {data_line(snapshot.process.space, found)}", "")]]
    return [*words, *([(text_of_damage, "red")] for text_of_damage in found.damage)]


def _page(request: Request, snapshot: Snapshot, found: Located, address: int) -> list[PageItem]:
    from heapdump.analyses.blocks.page_heap import is_free_stack
    from heapdump.analyses.memory.regions import select
    from heapdump.analyses.types.content import hex_lines

    heaps, block = snapshot.heaps, found.block
    region = next(iter(select(snapshot.usage, address=address)), None)
    where = f"{region.usage}{f' [{region.detail}]' if region.detail else ''}" if region else "no known memory"
    lines: list[list[tuple[str, str]]] = [[(f"{address:#x}", "bold"), (f" is {_RELATIONS[found.relation]}", "")]]
    if block is not None:
        heap = heaps[block.heap]
        own = " (the allocator's own)" if block.is_internal else ""
        lines[0].append((f" at {block.address:#x}, offset {found.offset:+#x}", ""))
        lines.append([(f"{block.state} {block.kind.word} block{own}: {text.plural(block.size, 'byte')} requested, "
                       f"{block.entry_size:,} occupied from {block.entry:#x} on", "")])  # fmt: skip
        if block.trust.value in _DOUBTS:
            lines.append([(_DOUBTS[block.trust.value], "yellow")])
        lines.append([(f"heap #{heap.index} {heap.address:#x} ({heap.kind}, {heap.role})", "")])
    lines.append([(f"region: {where}", "dim")])
    if block is not None and (detail := page_detail(snapshot, block)) is not None:
        lines += page_lines(detail)
    if block is not None:
        lines += _crt_lines(snapshot, block)
    if block is not None and snapshot.crash is not None and snapshot.crash.block == block:
        lines += [[(f"{snapshot.crash.bug}: ", "red bold"), (snapshot.crash.sentence, "red")]]
    page: list[PageItem] = [Lines(lines)]
    content = _content(snapshot, found)
    if block is not None and content is not None:
        page.append(
            Lines(
                [
                    [("content: ", "bold"), (content.guess, "")],
                    *([(line, "")] for line in hex_lines(content.data, block.address)),
                ]
            )
        )
    if block is not None and (stack_number(snapshot, block) or is_free_stack(block)):
        page.append(Lines(stack_lines(request, snapshot, block)))
    page.append(Table(block_columns(heaps), found.neighbours, title="Neighbours", empty="no block near it"))
    return page
