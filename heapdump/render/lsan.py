"""The report of LeakSanitizer, line by line (LLVM, compiler-rt/lib/lsan/lsan_common.cpp, `LeakReport`).

In: leaks as plain data. Out: pieces of text with their line ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from heapdump.render.text import printable

_RULER = "-" * 53


@dataclass(frozen=True, slots=True)
class LsanFrame:
    """A frame of a stack. `symbol`: "" without one; `place`: `file:line` or `(module+offset)`."""

    address: int
    symbol: str
    place: str


@dataclass(frozen=True, slots=True)
class LsanLeak:
    """Leaked blocks of one stack.

    Attributes:
        is_direct: True for directly leaked blocks.
        bytes: requested bytes of all.
        count: number of blocks.
        frames: of the stack, innermost first; () where none is recorded.
        key: text in place of the frames.
        objects: gives (address, requested bytes) of each block; called where objects are printed.
    """

    is_direct: bool
    bytes: int
    count: int
    frames: Sequence[LsanFrame]
    key: str
    objects: Callable[[], Iterable[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class LsanReport:
    """The content of a report.

    Attributes:
        pid: process id; 0 where it is not known.
        leaks: the leaks in the order in which they are printed.
        bytes: requested bytes of all leaks.
        count: number of blocks of all leaks.
        suppressed: (blocks, bytes, pattern) of each rule that suppresses leaks.
    """

    pid: int
    leaks: Sequence[LsanLeak]
    bytes: int
    count: int
    suppressed: Sequence[tuple[int, int, str]]


def lsan(report: LsanReport, most: int, *, with_objects: bool, with_suppressions: bool) -> Iterator[str]:
    """The report in pieces of text. `most`: most leaks that are printed; 0 for all."""
    leaks = report.leaks
    if leaks:
        yield f"\n{'=' * 65}\n=={report.pid}==ERROR: LeakSanitizer: detected memory leaks\n\n"
    most = most or len(leaks)
    if most < len(leaks):
        yield f"The {most} top leak(s):\n"
    for leak in leaks[:most]:
        yield from _leak(leak, with_objects=with_objects)
    if most < len(leaks):
        yield f"Omitting {len(leaks) - most} more leak(s).\n"
    if with_suppressions and report.suppressed:
        yield f"{_RULER}\nSuppressions used:\n  count      bytes template\n"
        yield from (f"{count:7} {size:10} {printable(pattern)}\n" for count, size, pattern in report.suppressed)
        yield f"{_RULER}\n\n"
    if leaks:
        yield f"SUMMARY: LeakSanitizer: {report.bytes} byte(s) leaked in {report.count} allocation(s).\n"


def _leak(leak: LsanLeak, *, with_objects: bool) -> Iterator[str]:
    word = "Direct" if leak.is_direct else "Indirect"
    yield f"{word} leak of {leak.bytes} byte(s) in {leak.count} object(s) allocated from:\n"
    for number, frame in enumerate(leak.frames):
        name = f"in {frame.symbol}" if frame.symbol else ""
        yield f"    {printable(f'#{number} {frame.address:#x} {name} {frame.place}')}\n"
    if not leak.frames:
        yield f"    <no stack recorded: {printable(leak.key)}>\n"
    yield "\n"
    if with_objects:
        yield "Objects leaked above:\n"
        yield from (f"{address:#x} ({size} bytes)\n" for address, size in leak.objects())
        yield "\n"
