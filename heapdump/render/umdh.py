"""The log that UMDH writes for a live process: its viewers and `umdh old new` then read a dump.

In: modules, and allocations of each heap. Out: the lines of the log. Numbers are hex without 0x, each stack is
written once, lines end in CR LF (semantics.md §2.8, after HeapStat).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allocation:
    """A busy block.

    Attributes:
        address: of its user data.
        size: requested bytes.
        overhead: bytes of its entry that were not requested.
        stack: number of its allocation stack; 0 for none.
    """

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


@dataclass(frozen=True, slots=True)
class Change:
    """A stack in two logs: its requested bytes and its blocks in the old and in the new one.

    `number`: of its backtrace; `frames`: as they are printed, innermost first.
    """

    number: int
    old_bytes: int
    new_bytes: int
    old_count: int
    new_count: int
    frames: tuple[str, ...]


def difference(changes: Sequence[Change], overhead: int) -> Iterator[str]:
    """The log of `umdh old new`: the largest increase first. `overhead`: change of the bytes that nobody asked for."""
    yield _SYNTAX
    for one in sorted(changes, key=lambda change: change.old_bytes - change.new_bytes):
        size, count = one.new_bytes - one.old_bytes, one.new_count - one.old_count
        trace = f"BackTrace{one.number:X}"
        yield (
            f"{_sign(size)} {abs(size):7} ({one.new_bytes:7} - {one.old_bytes:7}) {one.new_count:6} allocs\t{trace}\r\n"
            f"{_sign(count)} {abs(count):7} ({one.new_count:7} - {one.old_count:7})\t{trace}\tallocations\r\n\r\n"
        )
        yield "".join(f"\t{frame}\r\n" for frame in one.frames) + "\r\n\r\n"
    total = sum(one.new_bytes - one.old_bytes for one in changes)
    word, sign = ("increase", 1) if total >= 0 else ("decrease", -1)
    requested, more = sign * total, sign * overhead
    yield f"Total {word} == {requested:6} requested + {more:6} overhead = {requested + more:6}\r\n"


def _sign(value: int) -> str:
    return "-" if value < 0 else "+"


_SYNTAX = """// Each log entry has the following syntax:
//
// + BYTES_DELTA (NEW_BYTES - OLD_BYTES) NEW_COUNT allocs BackTrace TRACEID
// + COUNT_DELTA (NEW_COUNT - OLD_COUNT) BackTrace TRACEID allocations
//     ... stack trace ...
//
// where:
//     BYTES_DELTA - increase in bytes between before and after log
//     NEW_BYTES - bytes in after log
//     OLD_BYTES - bytes in before log
//     COUNT_DELTA - increase in allocations between before and after log
//     NEW_COUNT - number of allocations in after log
//     OLD_COUNT - number of allocations in before log
//     TRACEID - number of the stack trace

""".replace("\n", "\r\n")
