"""The log that UMDH writes for a live process: its viewers and `umdh old new` then read a dump.

In: modules, and allocations of each heap. Out: the lines of the log. Numbers are hex without 0x, each stack is
written once, lines end in CR LF (semantics.md §2.8, after HeapStat).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allocation:
    """A busy block: address, `size` requested bytes, `overhead` other bytes of its entry, `stack` number (0: none)."""

    address: int
    size: int
    overhead: int
    stack: int


def log(
    modules: Sequence[tuple[str, int, int]],
    heaps: Iterable[tuple[int, Iterable[Allocation]]],
    frames: dict[int, tuple[int, ...]],
) -> Iterator[str]:
    """The lines with their ends. `modules`: (path, start, end); `heaps`: (address, allocations); `frames`: by stack."""
    yield "// Loaded modules:\r\n//     Base Size Module\r\n"
    for path, start, end in modules:
        yield f"//            {start:X}    {end - start:X} {path}\r\n"
    yield "//\r\n"
    written: set[int] = set()
    for heap, allocations in heaps:
        yield f"*- - - - - - - - - - Start of data for heap @ {heap:X} - - - - - - - - - -\r\n\r\n"
        yield "REQUESTED bytes + OVERHEAD at ADDRESS by BackTraceID\r\n     STACK if not already dumped.\r\n\r\n"
        yield f"*- - - - - - - - - - Heap {heap:X} Hogs - - - - - - - - - -\r\n\r\n"
        for one in allocations:
            yield f"{one.size:X} bytes + {one.overhead:X} at {one.address:X} by BackTrace{one.stack:X}\r\n"
            if one.stack not in written and one.stack in frames:
                written.add(one.stack)
                yield "".join(f"\t{address:X}\r\n" for address in frames[one.stack]) + "\r\n"
        yield f"\r\n*- - - - - - - - - - End of data for heap @ {heap:X} - - - - - - - - - -\r\n\r\n"
