"""Recorded allocation stacks (`gflags +ust`): from the number of a stack to its return addresses.

A number below 0x10000 is an index into the stack trace database (XP and Server 2003, and entries with
HEAP_ENTRY_EXTRA). Other numbers are addresses of a record, of one of three kinds (heap-structures.md §4):

    {next, hash u32, depth u32, frames}          7 and later
    {…, index u16, depth u16, frames}            page heap from Vista on: an entry of the database
    RTL_TRACE_BLOCK                              page heap of XP

The first two have their frames at the same offset. A u32 depth is at most 64; in an entry of the database the u32
there is depth << 16 | index. The database is found without symbols: a word of ntdll's data points to a 64 KiB
boundary, and the structure there holds its own address (heap-structures.md §4.3).
"""

from __future__ import annotations

from functools import cache, cached_property

from heapdump.layouts import Layout
from heapdump.process.model import Process, View
from heapdump.spans import Span

FIRST_RECORD_ADDRESS = 0x10000
"""Numbers of stacks from here on are addresses of records."""

_MOST_FRAMES = 64
_PAGE = 0x1000
_TRACE_MAGIC = 0xABCDAAAA


class RecordedStacks:
    """The recorded stacks of one view.

    `frames(stack)`: the return addresses of the stack with a number, innermost first; None where the dump does not hold
    its record, or the record cannot be one. Each is read once.
    """

    def __init__(self, process: Process, view: View) -> None:
        """Reads nothing yet."""
        self._process, self._view = process, view
        self.frames = cache(self._frames)

    def _frames(self, stack: int) -> tuple[int, ...] | None:
        """Return addresses, innermost first; None where the record is not in the dump or cannot be one."""
        return self._of_record(stack) if stack >= FIRST_RECORD_ADDRESS else self._of_index(stack)

    def _of_record(self, address: int) -> tuple[int, ...] | None:
        view, pointer = self._view, self._view.pointer_bytes
        block = view.struct("_RTL_TRACE_BLOCK", address) if "_RTL_TRACE_BLOCK" in view.layout else None
        if block is not None and block["Magic"] == _TRACE_MAGIC:
            return self._read(block["Trace"], block["Size"])
        depth = view.space.try_integer(address + pointer + 4, 4)
        if depth is None or address % pointer:
            return None
        return self._read(address + pointer + 8, depth if depth <= _MOST_FRAMES else depth >> 16)

    def _of_index(self, index: int) -> tuple[int, ...] | None:
        if self.database is None or not 0 < index <= self.database["NumberOfEntriesAdded"]:
            return None
        view = self._view
        entry = view.space.try_pointer(self.database["EntryIndexArray"] - index * view.pointer_bytes)
        fields = view.struct("_RTL_STACK_TRACE_ENTRY", entry, self._layout) if entry else None
        if entry is None or fields is None or self._layout is None or fields["Index"] != index:
            return None
        return self._read(entry + self._layout["_RTL_STACK_TRACE_ENTRY"].offset("BackTrace"), fields["Depth"])

    def _read(self, address: int, depth: int) -> tuple[int, ...] | None:
        pointer = self._view.pointer_bytes
        data = self._view.space.try_read(address, depth * pointer) if 0 < depth <= _MOST_FRAMES else None
        if data is None:
            return None
        return tuple(int.from_bytes(data[i : i + pointer], "little") for i in range(0, len(data), pointer))

    @cached_property
    def _layout(self) -> Layout | None:
        """The likeliest layout that has a stack trace database."""
        return next((layout for layout in self._view.layouts if "_STACK_TRACE_DATABASE" in layout), None)

    @cached_property
    def database(self) -> dict[str, int] | None:
        """Name → value of the members of the `_STACK_TRACE_DATABASE`; None where the dump holds none.

        Reads the data of ntdll once.
        """
        if self._layout is None:
            return None
        view, tried = self._view, set[int]()
        for module in self._process.modules:
            if module.name.lower() != "ntdll.dll":
                continue
            for _, words in view.space.mapped.words(module.span, view.pointer_bytes):
                tried.update(words[(words % 0x10000 == 0) & (words > 0)].tolist())
        found = (self._at(address) for address in sorted(tried))
        return next((fields for fields in found if fields is not None), None)

    @property
    def span(self) -> Span | None:
        """[CommitBase, EntryIndexArray) of the database; None where there is none in the dump."""
        found = self.database
        return None if found is None else Span(found["CommitBase"], found["EntryIndexArray"])

    def _at(self, address: int) -> dict[str, int] | None:
        """The members of the database at an address; None unless CommitBase is the address, and bounds are ordered."""
        fields = self._view.struct("_STACK_TRACE_DATABASE", address, self._layout)
        if fields is None or fields["CommitBase"] != address:
            return None
        top, used = fields["EntryIndexArray"], fields["NumberOfEntriesAdded"] * self._view.pointer_bytes
        in_order = address < fields["NextFreeUpperMemory"] <= top and top % _PAGE == 0
        return fields if in_order and used <= top - fields["NextFreeUpperMemory"] else None
