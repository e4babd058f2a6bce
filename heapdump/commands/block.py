"""`block ADDRESS`: what is at an address, and what owns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.commands.common.addresses import address_in
from heapdump.commands.common.block_words import BlockWords, kind_words, word_columns
from heapdump.commands.common.blocks import BlockRecorder, block_columns, crt_blocks
from heapdump.commands.common.frames import frame_record, frames_of, stack_lines, stack_number
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.managed import place_lines
from heapdump.commands.common.options import option
from heapdump.commands.common.page_block import page_detail, page_lines, page_record
from heapdump.commands.common.pointees import pointees_of
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.shadow_words import chunk_header, chunk_record, chunk_words, shadow_lines, shadow_record
from heapdump.render import text
from heapdump.render.view import Answer, Lines, PageItem, Record, StyledLine, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.blocks.locate import Located
    from heapdump.analyses.types.content import Content
    from heapdump.blocks.table import Block
    from heapdump.commands.common.block_fields import FieldsView
    from heapdump.commands.common.unnamed_words import DescribedMemory
    from heapdump.snapshot import Snapshot

_TRUST_SENTENCES = {
    "derived": "it lies behind damage, or its header is damaged: what is said of it follows from what is whole",
    "guess": "its header is damaged, or not in the dump: its state or its size is a guess",
}
_RELATIONS = {
    "user": "inside the block", "header": "in the header of the block", "slack": "behind the bytes that were asked for",
    "free": "in a free block", "outside": "in no block", "guard": "in a guard page",
}  # fmt: skip


@option("--fields", is_flag=True, help="Type, containers, and each word with its meaning; follows pointers.")
@dump_command("block", takes_address=True)
def command(request: Request, address: str, fields: bool) -> int:
    """What is at an address, and what owns it, as !heap -p -a.

    \b
    heapdump block crash.dmp 0x43500060
    heapdump block crash.dmp 0x43500060 --fields
    heapdump -d crash.dmp block 00000000`43500060
    """
    from heapdump.analyses.blocks.locate import locate

    request.refuse_sorting("block")
    with request.open() as snapshot:
        at = address_in(request, snapshot, address)
        found = locate(snapshot.walk.table, snapshot.process.space, at)
        place = _BlockAtAddress(request, snapshot, at, found, fields)
        answer = Answer(
            "block",
            data=place.record,
            records=lambda: [place.record()],
            page=place.page,
            gaps=walk_gaps(snapshot),
        )
        return request.emit(snapshot, answer)


@dataclass(frozen=True)
class _BlockAtAddress:
    """An address and the block there."""

    request: Request
    snapshot: Snapshot
    address: int
    found: Located
    with_fields: bool

    def record(self) -> Record:
        """The JSON record."""
        from heapdump.analyses.blocks.page_heap import is_free_stack

        snapshot, found = self.snapshot, self.found
        recorder, block = BlockRecorder(snapshot), found.block
        names = (
            "address",
            "entry",
            "heap",
            "segment",
            "kind",
            "state",
            "size",
            "entry_size",
            "flags",
            "stack",
            "trust",
        )
        record: Record = recorder(block) if block else dict.fromkeys(names)
        if block is None:
            record |= {"address": hex(self.address), "flags": []}
        content = self._content()
        detail = page_detail(snapshot, block) if block else None
        is_free = block is not None and is_free_stack(block)
        frames = [frame_record(frame) for frame in frames_of(self.request, snapshot, block)] if block else []
        return record | {
            "offset": found.offset,
            "relation": found.relation,
            "frames": [] if is_free else frames,
            "neighbours": [recorder(b) for b in found.neighbours],
            "content": _content_record(content) if content else None,
            **({"free_frames": frames} if is_free else {}),
            **({"page": page_record(detail)} if detail else {}),
            **({"shadow": shadow} if (shadow := shadow_record(snapshot, self.address)) else {}),
            **({"chunk": chunk_record(chunk)} if block and (chunk := chunk_header(snapshot, block)) else {}),
            **({"memory": about.record()} if (about := self._about()) else {}),
            **(fields.record() if (fields := self._fields()) else {}),
        }

    def page(self) -> Iterator[PageItem]:
        """The block, its content, its stack, the blocks beside it."""
        block, heaps = self.found.block, self.snapshot.heaps
        where = [(f"{self.address:#x}", "bold"), (f" is in no block{self._named()}", "")]
        region = (f"region: {self._region()}", "dim")
        if block is None:
            about = self._about()
            shadow = shadow_lines(self.snapshot, self.address)
            yield Lines([where, [region], *self._managed_lines(), *(about.lines() if about else ()), *shadow])
        else:
            yield Lines([self._where(block), *self._block_lines(block), [region], *self._detail_lines(block)])
            if around := list(shadow_lines(self.snapshot, self.address)):
                yield Lines(around)
            fields = self._fields()
            yield from fields.items() if fields else self._content_lines(block)
            yield from self._stack_lines(block)
        words = BlockWords(self.request, self.snapshot, (block.row for block in self.found.neighbours))
        columns = (*block_columns(heaps), *word_columns(words))
        if self.found.block is not None or self._is_in_a_heap():
            yield Table(columns, self.found.neighbours, title="Neighbours", empty="no block near it")

    def _fields(self) -> FieldsView | None:
        """The decoded view of a block, where it is asked for."""
        from heapdump.commands.common.block_fields import FieldsView

        block = self.found.block
        return FieldsView(self.request, self.snapshot, block) if self.with_fields and block is not None else None

    def _where(self, block: Block) -> StyledLine:
        """The place of the address in the block, in words."""
        offset, words = self.found.offset or 0, _RELATIONS[self.found.relation]
        if self.found.relation == "guard":
            past = f"{text.plural(offset - block.size, 'byte')} past its end" if offset >= block.size else "before it"
            place = f" is in the guard page of block {block.address:#x}, {past}"
        elif not offset:
            place = f" is the start of a {'free ' if block.state == 'free' else ''}block"
        else:
            place = f" is {words} at {block.address:#x}, offset {offset:+#x}"
        return [(f"{self.address:#x}", "bold"), (place, "")]

    def _managed_lines(self) -> Iterator[StyledLine]:
        """The managed method or object at an address outside of native heaps."""
        from heapdump.analyses.managed.places import managed_place

        place = managed_place(self.snapshot.runtimes, self.address)
        if place.code is not None or place.found is not None:
            yield from place_lines(place)

    def _about(self) -> DescribedMemory | None:
        """Who refers to memory outside of all blocks that nothing names."""
        from heapdump.commands.common.unnamed_words import described_memory

        return described_memory(self.request, self.snapshot, self.address) if self.found.block is None else None

    def _named(self) -> str:
        """`: app.exe!Load+0x14` of an address in a module or on a stack; "" elsewhere."""
        from heapdump.analyses.by_hand.pointees import PointeeKind

        request, snapshot = self.request, self.snapshot
        namer = snapshot.namer(request.image_path, request.symbol_path)
        found = pointees_of(snapshot, namer).at(self.address)
        return f": {found.text}" if found is not None and found.kind in (PointeeKind.MODULE, PointeeKind.STACK) else ""

    def _is_in_a_heap(self) -> bool:
        """True where memory of a heap is at the address: blocks elsewhere are no neighbours of it."""
        return "heap" in self._region().lower()

    def _region(self) -> str:
        """Usage and detail of the memory at the address."""
        from heapdump.analyses.memory.regions import select

        region = next(
            iter(select(self.snapshot.usage, at=text.parse_span(hex(self.address), text.parse_address, 0))), None
        )
        if region is None:
            return "no known memory"
        evidence = f": {region.evidence}" if region.evidence else ""
        return f"{region.usage}{f' [{region.detail}]' if region.detail else ''}{evidence}"

    def _block_lines(self, block: Block) -> Iterator[StyledLine]:
        heap = self.snapshot.heaps[block.heap]
        own = " (the allocator's own)" if block.is_internal else ""
        kind_of = "free" if block.state == "free" else "requested"
        size = f"{text.plural(block.size, 'byte')} {kind_of}, {block.entry_size:,} occupied from {block.entry:#x} on"
        yield [(f"{block.state} {kind_words(block.kind)} block{own}: {size}", "")]
        if block.trust.value in _TRUST_SENTENCES:
            yield [(_TRUST_SENTENCES[block.trust.value], "yellow")]
        yield [(f"heap #{heap.index} {heap.address:#x} ({heap.kind}, {heap.role})", "")]

    def _detail_lines(self, block: Block) -> Iterator[StyledLine]:
        """Page heap, the CRT's debug heap, the crash."""
        snapshot = self.snapshot
        if (detail := page_detail(snapshot, block)) is not None:
            yield from page_lines(detail)
        yield from _crt_lines(snapshot, block)
        if (chunk := chunk_header(snapshot, block)) is not None:
            yield [("AddressSanitizer: ", "bold"), (chunk_words(chunk), "")]
        if snapshot.crash is not None and snapshot.crash.block == block:
            yield [(f"{snapshot.crash.bug}: ", "red bold"), (snapshot.crash.sentence, "red")]

    def _content(self) -> Content | None:
        from heapdump.analyses.types.content import content_of

        block, snapshot = self.found.block, self.snapshot
        if block is None:
            return None
        view = snapshot.view_of(snapshot.heaps[block.heap])
        return content_of(snapshot.process, view, snapshot.walk.table, block.row)

    def _content_lines(self, block: Block) -> Iterator[Lines]:
        from heapdump.analyses.types.content import hex_lines

        content = self._content()
        if content is not None:
            lines = ([(line, "")] for line in hex_lines(content.data, block.address))
            yield Lines(
                [[("content: ", "bold"), ("other data" if content.guess == "binary" else content.guess, "")], *lines]
            )

    def _stack_lines(self, block: Block) -> Iterator[Lines]:
        from heapdump.analyses.blocks.page_heap import is_free_stack

        is_read = self.snapshot.heaps[block.heap].shadow is None  # ids of AddressSanitizer lead to no frames
        if is_read and (stack_number(self.snapshot, block) or is_free_stack(block)):
            yield Lines(stack_lines(self.request, self.snapshot, block))


def _content_record(content: Content) -> Record:
    found = content.class_name
    return {
        "preview": content.data.hex(),
        "guess": content.guess,
        "class": None
        if found is None
        else {"name": found.name, "decorated": found.decorated, "module": found.module.name},
    }


def _crt_lines(snapshot: Snapshot, block: Block) -> Iterator[StyledLine]:
    """The header of the CRT's debug heap, for blocks of it."""
    import numpy as np

    from heapdump.analyses.allocated.crt import data_line

    found = crt_blocks(snapshot, np.array([block.row], np.int64)).get(block.row)
    if found is not None:
        yield [("CRT debug heap: ", "bold"), (f"{found.words}. {data_line(snapshot.process.space, found)}", "")]
        yield from ([(damage, "red")] for damage in found.damage)
