"""The thing that a pointer leads to: a block and its type, a place on a stack, code or data of a module, a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np

from heapdump.analyses.blocks.locate import locate
from heapdump.analyses.by_hand.texts import quoted, text_at
from heapdump.analyses.managed.places import managed_place
from heapdump.analyses.memory.usage import UsageKind, UsageMap
from heapdump.analyses.types.block_starts import BlockData
from heapdump.analyses.types.block_types import types_of, view_by_heap
from heapdump.analyses.types.content_kind import ContentKind
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import Block, BlockTable
from heapdump.memory.regions import State
from heapdump.process.model import Module, Process
from heapdump.process.symbols.namer import Namer
from heapdump.process.symbols.rtti import class_of_vtable
from heapdump.runtimes.runtime import Runtime

_LOWEST = 0x10000
"""Windows maps nothing below."""

_UNTYPED_CONTENT = {ContentKind.OTHER, ContentKind.ABSENT, ContentKind.EMPTY}


class PointeeKind(StrEnum):
    """The kind of a pointee; the value is the word of the JSON."""

    BLOCK = "block"
    STACK = "stack"
    MODULE = "module"
    REGION = "region"


@dataclass(frozen=True, slots=True)
class Pointee:
    """The thing that a pointer leads to.

    Attributes:
        kind: kind of the thing.
        text: the thing, for a person.
        start: its first address; of a block that of its user data.
        offset: the pointer minus `start`, in bytes.
    """

    kind: PointeeKind
    text: str
    start: int
    offset: int


@dataclass(frozen=True, slots=True)
class Words:
    """The sources of names.

    Attributes:
        namer: names code.
        managed: gives the name of the managed object at an address; "" for none.
        quotes: True to quote the texts that blocks hold.
    """

    namer: Namer
    managed: Callable[[int], str] = lambda _: ""
    quotes: bool = True


class Pointees:
    """Names what pointers lead to. The heaps are walked when the first pointer into one of them is met."""

    def __init__(
        self,
        process: Process,
        usage: UsageMap,
        heaps: tuple[Heap, ...],
        table: Callable[[], BlockTable],
        words: Words,
    ) -> None:
        """`table()` gives the blocks of `heaps`."""
        self._process, self._usage, self._heaps = process, usage, heaps
        self._namer, self._managed, self._quotes = words.namer, words.managed, words.quotes
        self._table, self._handles = table, {heap.address: heap for heap in heaps}
        self.at = cache(self._at)

    def _at(self, address: int) -> Pointee | None:
        """The thing at an address; None where nothing is committed there, and for small numbers."""
        regions = self._usage.table
        i = regions.index_at(address) if address >= _LOWEST else None
        if i is None or regions.state[i] == State.MEM_FREE:
            return None
        usage = self._usage.kind(int(self._usage.codes[i]))
        if (heap := self._handles.get(address)) is not None:
            text = f"heap #{heap.index} {heap.address:#x} ({heap.kind}, {heap.role})"
            return Pointee(PointeeKind.REGION, text, address, 0)
        if usage in (UsageKind.HEAP, UsageKind.PAGE_HEAP) and (block := self._in_block(address)):
            return block
        if usage is UsageKind.STACK and (slot := self._on_stack(address)):
            return slot
        if (module := self._process.module_map.at(address)) is not None:
            return self._in_module(module, address)
        if regions.state[i] != State.MEM_COMMIT:
            return None
        region = next(self._usage.regions(np.array([i])))
        words = self._managed(address) or f"{region.usage}{f' [{region.detail}]' if region.detail else ''}"
        named = self._namer.name(address, 0)
        if named.symbol or (named.note and not named.module):
            words = str(named) if named.symbol else named.note
        elif found := self._quote(address):
            words = f"{region.usage}: {found}"
        return Pointee(PointeeKind.REGION, words, region.span.start, address - region.span.start)

    def _quote(self, address: int) -> str:
        """The text at an address in quotation marks; "" where there is none, or none is wanted."""
        text = text_at(self._process.space, address) if self._quotes else None
        return quoted(text) if text else ""

    def _in_block(self, address: int) -> Pointee | None:
        found = locate(self._table(), self._process.space, address)
        block = found.block
        if block is None:
            return None
        offset = address - block.address
        place = f"{block.address:#x}{f'{offset:+#x}' if offset else ''}"
        what = "block of the allocator" if block.is_internal else f"{block.state} block"
        type_ = "" if block.is_internal or block.state == "free" else self._type_of(block)
        if words := self._quote(address):
            type_ = words
        text = f"{what} {place}, {block.size:,} bytes{f': {type_}' if type_ else ''}"
        return Pointee(PointeeKind.BLOCK, text, block.address, offset)

    def _type_of(self, block: Block) -> str:
        """The class or the content of a block in a few words; "" where they say nothing."""
        views = view_by_heap(self._process, self._heaps)
        label = types_of(self._process, views, BlockData(self._table()), np.array([block.row]), by_class=True).labels[0]
        return "" if label in _UNTYPED_CONTENT else label

    def _on_stack(self, address: int) -> Pointee | None:
        for thread in self._process.threads:
            for stack in thread.stacks:
                if (stack.reserved or stack.limit) <= address < stack.base:
                    registers = thread.registers32 if stack.view == "x86" and thread.registers32 else thread.registers
                    sp = registers.sp if registers and registers.arch == stack.view else None
                    text = f"stack of ~{thread.index} tid {thread.id:#x}"
                    if sp is not None and stack.limit <= sp <= stack.base:
                        name = "rsp" if stack.view == "x64" else "esp"
                        text += f", {name}{address - sp:+#x}" if address != sp else f", {name}"
                    return Pointee(PointeeKind.STACK, text, stack.limit, address - stack.limit)
        return None

    def _in_module(self, module: Module, address: int) -> Pointee:
        """Code by its symbol, data by its section, a table of virtual functions by its class."""
        offset = address - module.span.start
        for view in self._process.views:
            found = class_of_vtable(self._process, view, address)
            if found is not None:
                text = f"vtable of {found.kind} {found.name} ({module.name})"
                return Pointee(PointeeKind.MODULE, text, module.span.start, offset)
        text = str(self._namer.name(address, 0)) if offset else module.name
        if words := self._quote(address):
            text = f"{text}: {words}"
        image = self._namer.image(module)
        section = image.section_at(offset) if image else None
        if section is not None and not section[0].startswith(".text") and "!" not in text:
            text = f"{module.name}!{section[0]}+{offset - section[1]:#x}"
        return Pointee(PointeeKind.MODULE, text, module.span.start, offset)


def managed_words(runtimes: Sequence[Runtime], address: int) -> str:
    """The object of a runtime at an address, with its text where it is a string; "" where there is none."""
    place = managed_place(runtimes, address)
    found = place.found
    if found is None:
        return ""
    offset = f"+{address - found.address:#x}" if address != found.address else ""
    text = f": {quoted(place.text)}" if place.text else ""
    return f"{found.type}{offset}, {found.bytes:,} bytes{text}"
