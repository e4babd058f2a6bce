"""The variables of the garbage collector, as it names them for debuggers (`GcDacVars`, gcinterface.dac.h; 2.1 to 10).

u8 major, u8 minor, size of a generation; from major 2 on the number of generations; then pointers to variables in a
fixed order. The structure is found in the runtime's table of variables by its shape: major 1 to 9, a plausible size,
and a variable `max_gen` that is 2; without the table it is looked for in the whole module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

_GENERATIONS, _MAX_GENERATION, _EPHEMERAL, _ALLOCATED = 3, 4, 7, 12
_OUT_OF_MEMORY, _HEAP_COUNT, _HEAPS, _INVALID = 14, 19, 20, 21
_HEAP_OFFSETS, _GENERATION_OFFSETS, _BOOKKEEPING = 27, 28, 29
_LEAST_SIZE, _MOST_SIZE, _MOST_HEAPS, _MOST_GENERATIONS = 0x40, 0x800, 1024, 8


@dataclass(frozen=True)
class GcVariables:
    """The variables of the collector. Members are addresses where nothing else is said; 0 where the release has none.

    Attributes:
        generation_bytes: bytes of an entry of the generation table.
        generation_count: number of its entries.
        generations: the generation table of workstation GC.
        ephemeral: the variable that points to the ephemeral segment.
        allocated: the variable that holds the end of its objects.
        out_of_memory: the record of the last failure (`oom_history`).
        heaps: each `gc_heap` of server GC; () for workstation GC.
        heap_offsets: u32 array with the offsets of members of `gc_heap`.
        generation_offsets: u32 array with the offsets of members of a generation.
        bookkeeping: the collector's card table and other tables.
        is_invalid: True while the collector changes its structures.
    """

    generation_bytes: int
    generation_count: int
    generations: int
    ephemeral: int
    allocated: int
    out_of_memory: int
    heaps: tuple[int, ...]
    heap_offsets: int
    generation_offsets: int
    bookkeeping: int
    is_invalid: bool


def find_gc_variables(space: AddressSpace, variables: Sequence[int]) -> GcVariables | None:
    """The collector's variables; None where no variable of the runtime has their shape."""
    for address in variables:
        for place in (space.try_pointer(address) or 0, address):
            found = _at(space, place) if place else None
            if found is not None:
                return found
    return None


def search_gc_variables(space: AddressSpace, module: Span) -> GcVariables | None:
    """The collector's variables by their shape alone, in the memory of the runtime's module; None without them."""
    for start, words in space.mapped.words(module, space.pointer_bytes):
        first, size = words[:-1], words[1:]
        major = first & np.uint64(0xFF)
        keep = (first >> np.uint64(16) == 0) & (major >= 1) & (major <= 9)
        keep &= (size >= _LEAST_SIZE) & (size <= _MOST_SIZE)
        for i in np.flatnonzero(keep).tolist():
            found = _at(space, start + i * space.pointer_bytes)
            if found is not None and found.generations:
                return found
    return None


def _at(space: AddressSpace, address: int) -> GcVariables | None:
    p = space.pointer_bytes
    first, size = space.try_pointer(address), space.try_pointer(address + p)
    if first is None or size is None or first >> 16 or not 1 <= first & 0xFF <= 9:
        return None
    if not _LEAST_SIZE <= size <= _MOST_SIZE or size % p:
        return None
    major = first & 0xFF
    head = 3 if major >= 2 else 2
    count = space.try_pointer(address + 2 * p) if major >= 2 else 4
    most = space.try_pointer(address + p * (head + _MAX_GENERATION))
    if not most or space.try_integer(most, 4) != 2 or not count or not 4 <= count <= _MOST_GENERATIONS:
        return None

    def variable(number: int) -> int:
        """The address of a variable; those behind number 26 exist from major 2 on."""
        return (space.try_pointer(address + p * (head + number)) or 0) if number < _HEAP_OFFSETS or major >= 2 else 0

    heaps = _heaps(space, variable(_HEAP_COUNT), variable(_HEAPS))
    invalid = space.try_integer(variable(_INVALID), 4) if variable(_INVALID) else 0
    return GcVariables(
        size, count, variable(_GENERATIONS), variable(_EPHEMERAL), variable(_ALLOCATED), variable(_OUT_OF_MEMORY),
        heaps, variable(_HEAP_OFFSETS), variable(_GENERATION_OFFSETS), variable(_BOOKKEEPING), bool(invalid),
    )  # fmt: skip


def _heaps(space: AddressSpace, count_at: int, heaps_at: int) -> tuple[int, ...]:
    """The heaps of server GC; none of workstation GC, which has neither variable."""
    count = space.try_integer(count_at, 4) if count_at else 0
    table = space.try_pointer(heaps_at) if heaps_at else 0
    if not count or not table or count > _MOST_HEAPS:
        return ()
    found = (space.try_pointer(table + space.pointer_bytes * i) for i in range(count))
    return tuple(heap for heap in found if heap)


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The collector's record of its last failure (`oom_history`, gcinterface.dac.h).

    Attributes:
        reason: 1 to 6.
        alloc_bytes: bytes that were asked for.
        reserved_bytes: end of the memory that was reserved.
        allocated_bytes: end of the objects.
    """

    reason: int
    alloc_bytes: int
    reserved_bytes: int
    allocated_bytes: int


def out_of_memory(space: AddressSpace, variables: GcVariables) -> OutOfMemory | None:
    """The record; None where the collector never failed, and where the reason is not 1 to 6."""
    p = space.pointer_bytes
    data = space.try_read(variables.out_of_memory, 4 * p) if variables.out_of_memory else None
    if data is None:
        return None
    reason = int.from_bytes(data[:4], "little")
    alloc, reserved, allocated = (int.from_bytes(data[i * p : i * p + p], "little") for i in (1, 2, 3))
    return OutOfMemory(reason, alloc, reserved, allocated) if 1 <= reason <= 6 else None
