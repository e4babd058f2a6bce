"""The triage page for a person: short sections with a label in the margin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from heapdump.commands.common.capture import most_captures
from heapdump.commands.common.frames import place_name
from heapdump.commands.common.incident_lines import broken_lines, is_exception_alone
from heapdump.commands.common.locks import hang_lines
from heapdump.commands.common.next_command import command_text
from heapdump.commands.common.process import header_lines
from heapdump.commands.common.thread_stacks import first_own, frame_style
from heapdump.commands.common.triage_record import crash_words
from heapdump.commands.common.unnamed_words import large_lines
from heapdump.render import text
from heapdump.render.view import COMMAND, Lines, PageItem, Section, Sections, StyledLine

if TYPE_CHECKING:
    from heapdump.analyses.memory.capabilities import Capability
    from heapdump.analyses.triage.crash import CrashSection
    from heapdump.analyses.triage.page import HeapSection, ManagedShare, MemorySection, Triage
    from heapdump.commands.common.request import Request
    from heapdump.commands.common.unnamed_words import LargeMemory
    from heapdump.snapshot import Snapshot

_MOST_FRAMES, _MOST_ITEMS = 5, 4
_AWARE = {None: "", True: ", large-address aware", False: ", not large-address aware"}
_BAR = 16
_SMALL_SHARE = 0.02


def page_of(
    request: Request, snapshot: Snapshot, page: Triage, unnamed: Sequence[LargeMemory] = ()
) -> Iterator[PageItem]:
    """The header of the process, and the sections. `unnamed`: the largest allocations of unknown memory."""
    yield Lines(list(header_lines(snapshot)))
    sections = [
        *([Section("CRASH", list(_crash(request, snapshot, page.crash)))] if page.crash else []),
        *([Section("HANG", list(_hang(snapshot, page)))] if page.hang else []),
        *([] if page.crash or page.hang else [Section("RUNNING", [[(_running(snapshot), "")]])]),
        Section("HEAP", list(_heap(request, snapshot, page.heap))),
        Section("MEMORY", [*_memory(page.memory), *large_lines(unnamed)]),
        Section("WHO", list(_holder_lines(page)) or [[("no block of the program is in this dump", "")]]),
        *([Section("CANNOT", list(_cannot(page.cannot)))] if page.cannot else []),
        Section("NEXT", [[(command_text(snapshot, command), COMMAND)] for command in page.next]),
    ]
    yield Sections(sections)


def _crash(request: Request, snapshot: Snapshot, crash: CrashSection) -> Iterator[StyledLine]:
    thread = "" if crash.thread is None else f", thread {crash.thread:#x}"
    yield [(crash_words(crash), "red"), (f"{thread}, at {place_name(request, snapshot, crash.address)}", "")]
    if crash.instruction:
        yield [(f"  {crash.instruction}", "bold")]
    for one in crash.registers:
        yield [(f"  {one.name} = {one.value:#x}", ""), (f": {one.meaning}" if one.meaning else "", "")]
    style = frame_style(snapshot.process, first_own(snapshot.process, crash.frames))
    for number in shown_frames(crash):
        found = crash.frames[number]
        yield [(f"  #{number} {found.frame}", style((number, found)))]


def _running(snapshot: Snapshot) -> str:
    locks = "no thread waits for the lock of a heap" if snapshot.locks else "locks of heaps are not in it"
    return f"dump of a running process; {locks}"


def _hang(snapshot: Snapshot, page: Triage) -> Iterator[StyledLine]:
    for line in hang_lines(snapshot, page.hang, page.hang_frames) if page.hang else ():
        yield [(line, "red")]


def shown_frames(crash: CrashSection) -> list[int]:
    """The numbers of the frames that are shown: the innermost one, then from the first one of the program on."""
    from heapdump.analyses.allocated.stack_keys import first_of_program, passes_on

    own = first_of_program([found.frame for found in crash.frames], passes_on(())) or 0
    numbers = [0, *range(max(1, own), len(crash.frames))] if crash.frames else []
    return numbers[:_MOST_FRAMES]


def _heap(request: Request, snapshot: Snapshot, heap: HeapSection) -> Iterator[StyledLine]:
    found = [one for one in heap.incidents if not is_exception_alone(one)]
    unseen = f"; {text.plural(heap.gaps, 'part')} could not be examined" if heap.gaps else ""
    yield from broken_lines(request, snapshot, found, heap.verdict, unseen)


def _memory(memory: MemorySection) -> Iterator[StyledLine]:
    if not memory.items:
        yield [("not known: the dump has no memory map", "")]
        return
    yield [(_totals(memory), "")]
    total = memory.committed_bytes or 1
    for line in [line for line in memory.items if line.bytes >= _SMALL_SHARE * total][:_MOST_ITEMS]:
        bar = "█" * round(_BAR * line.bytes / total)
        share = "" if line.share is None else f"{line.share:4.0%}"
        size = f"{text.short_size(line.bytes):>9} {share} "
        yield [(size, ""), (f"{bar:<{_BAR}}", "cyan"), (f" {line.words}", "")]
    if memory.managed is not None:
        yield [(_managed_or_native(memory.managed), "")]
    if memory.largest_free is not None:
        free = memory.largest_free
        place = f"largest allocatable block {text.short_size(free.bytes)} at {free.address:#x}"
        yield [(place + _AWARE[memory.is_large_address_aware], "")]


def _managed_or_native(found: ManagedShare) -> str:
    """`managed or native: native; managed 18.3 MB (GC heap 15.6 MB), native heaps 13.0 GB`."""
    sizes = [f"managed {text.short_size(found.bytes)} (GC heap {text.short_size(found.objects)})"]
    sizes += [f"native heaps {text.short_size(found.native)}"] if found.native else []
    sizes += [f"unknown private memory {text.short_size(found.unknown)}"] if found.unknown else []
    return f"managed or native: {found.answer}; {', '.join(sizes)}"


def _totals(memory: MemorySection) -> str:
    """`370.9 MB committed, 369.3 MB private`; without a memory map the memory in the dump."""
    total = text.short_size(memory.committed_bytes)
    words = f"{total} committed" if memory.is_whole_process else f"{total} of memory in the dump"
    if memory.private_bytes is None:
        return words
    by_windows = ", as Windows counts them" if memory.is_counted else ""
    return f"{words}; private bytes {text.short_size(memory.private_bytes)}{by_windows}"


def _holder_lines(page: Triage) -> Iterator[StyledLine]:
    for holder in page.holders:
        yield [(holder.sentence, "red" if holder.is_bad else "")]


def _cannot(questions: tuple[Capability, ...]) -> Iterator[StyledLine]:
    for one in questions:
        yield [(f"{one.question.rstrip('?')}: {one.reason}", "")]
    for line in most_captures(questions):
        yield [("  ", ""), *line]
