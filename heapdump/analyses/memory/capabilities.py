"""Capabilities: the questions that this dump answers, wholly, partly or not, and how to capture a better dump."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from heapdump.analyses.memory.capture import Capture, capture_crash, capture_map, capture_private, program_of
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.process.load import NO_MEMORY_MAP
from heapdump.process.model import Process
from heapdump.spans import merged
from heapdump.wording import plural

Answerable = Literal["yes", "partly", "no"]
_UST, _HPA = 0x1000, 0x02000000
"""Bits of NtGlobalFlag: stack traces, page heap (heap-structures.md §1.3)."""


class Topic(StrEnum):
    """The subject of a question to a dump."""

    MEMORY_MAP = "memory_map"
    HEAPS = "heaps"
    BLOCKS = "blocks"
    STACKS = "stacks"
    CRASH = "crash"
    MODULES = "modules"


_QUESTIONS = {
    Topic.MEMORY_MAP: ("where did the memory go?", "summary, regions"),
    Topic.HEAPS: ("which heaps are there, and how large?", "heaps"),
    Topic.BLOCKS: ("what is in the blocks?", "heap, blocks, virt-blocks, block"),
    Topic.STACKS: ("who allocated a block?", "allocation stacks"),
    Topic.CRASH: ("what happened?", "exception, thread registers"),
    Topic.MODULES: ("which code is it?", "modules, PDB ids"),
}
"""Topic → the question in the user's words, and the commands or facts that answer it."""


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether this dump answers the question of a topic, and why.

    Attributes:
        topic: subject of the question.
        answer: yes, partly or no.
        reason: why, in words.
        capture: the smallest dump that answers it; None where another dump would not help.
        before: step before the start of the program that such a dump needs; "" for none.
        hint: step that helps without another dump; "" for none.
        says: notes of the process that the reason repeats.
    """

    topic: Topic
    answer: Answerable
    reason: str
    capture: Capture | None = None
    before: str = ""
    hint: str = ""
    says: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """The question in the user's words."""
        return _QUESTIONS[self.topic][0]

    @property
    def title(self) -> str:
        """The question and the commands or facts that answer it: `question` in JSON."""
        return f"{self.question} ({_QUESTIONS[self.topic][1]})"

    @property
    def advice(self) -> str:
        """The steps to a dump that answers it, in words; "" where nothing helps."""
        if self.capture is None:
            return self.hint
        if self.before:
            return f"{self.before}, start the program again, then {self.capture.command}"
        return self.capture.command


def capabilities(process: Process, heaps: Sequence[Heap]) -> tuple[Capability, ...]:
    """A capability for each topic, in the order of `Topic`, by the memory that is in the dump, not by its flags."""
    return (
        *_memory_map(process), *_heaps(process, heaps), *_blocks(process, heaps), *_stacks(process, heaps),
        *_crash(process), *_modules(process),
    )  # fmt: skip


def _memory_map(process: Process) -> Iterator[Capability]:
    if process.regions.is_complete_map:
        yield Capability(Topic.MEMORY_MAP, "yes", f"memory map with {plural(len(process.regions), 'region')}")
    else:
        reason = "no memory map (MemoryInfoList): sizes are those of the file, not of the process"
        yield Capability(Topic.MEMORY_MAP, "partly", reason, capture_map(process), says=(NO_MEMORY_MAP,))


def _heaps(process: Process, heaps: Sequence[Heap]) -> Iterator[Capability]:
    verified = [heap for heap in heaps if heap.kind != HeapKind.UNKNOWN]
    has_lists = all(view.heap_list_complete for view in process.views)
    total = plural(len(heaps), "heap")
    if not verified:
        yield Capability(Topic.HEAPS, "no", "no heap header is in the dump", capture_private(process))
    elif has_lists and all(heap.is_fully_walked for heap in heaps):
        yield Capability(Topic.HEAPS, "yes", f"{total}, all lists whole")
    else:
        reason = f"{len(verified)} of {total} verified, some lists or inner parts not read (see heaps)"
        yield Capability(Topic.HEAPS, "partly", reason, None if has_lists else capture_private(process))


def _blocks(process: Process, heaps: Sequence[Heap]) -> Iterator[Capability]:
    needed = sum(_needed_bytes(process, heap) for heap in heaps)
    spans = merged(extent.span for heap in heaps for extent in heap.extents)
    edges = np.array([[span.start, span.end] for span in spans], np.uint64).reshape(-1, 2)
    present = min(needed, int(process.space.mapped.bytes_present(edges[:, 0], edges[:, 1]).sum()))
    capture = capture_private(process)
    if process.missing_bytes:
        reason = f"the file is cut: {process.missing_bytes:,} bytes of memory are missing"
        yield Capability(Topic.BLOCKS, "partly", reason, hint="copy the dump again, comparing sizes")
    elif not present:
        reason = "no heap could be located" if not spans else "no memory of the heaps is in the dump"
        yield Capability(Topic.BLOCKS, "no", reason, capture)
    elif present < needed:
        reason = f"{present:,} of {needed:,} bytes of the heaps are in the dump"
        yield Capability(Topic.BLOCKS, "partly", reason, capture)
    else:
        yield Capability(Topic.BLOCKS, "yes", f"all {needed:,} committed bytes of the heaps are in the dump")


def _needed_bytes(process: Process, heap: Heap) -> int:
    """Committed bytes of a heap: those that can be read by the memory map, else by the heap's own lists."""
    if process.regions.is_complete_map:
        spans = merged(extent.span for extent in heap.extents)
        return sum(process.regions.committed_bytes(span, readable=True) for span in spans)
    return (heap.committed_bytes or 0) + (heap.large_committed_bytes or 0)


def _stacks(process: Process, heaps: Sequence[Heap]) -> Iterator[Capability]:
    before, capture = f"gflags /i {program_of(process)} +ust", capture_private(process)
    flags = [view.global_flag for view in process.views if view.global_flag is not None]
    if any(flag & (_UST | _HPA) for flag in flags) or any(heap.stack_traces for heap in heaps):
        yield Capability(Topic.STACKS, "yes", "stacks were recorded (NtGlobalFlag has +ust or page heap)")
        return
    reason = (
        f"stacks were not recorded (NtGlobalFlag {flags[-1]:#x})"
        if flags
        else "the PEB is not in the dump, so its NtGlobalFlag is not known"
    )
    yield Capability(Topic.STACKS, "no", reason, capture, before)


def _crash(process: Process) -> Iterator[Capability]:
    if process.exception is not None:
        yield Capability(Topic.CRASH, "yes", f"exception {process.exception.code:#010x} is recorded")
    elif process.threads:
        reason = "no exception: taken of a running process; the threads are there"
        yield Capability(Topic.CRASH, "partly", reason, capture_crash(process))
    else:
        yield Capability(Topic.CRASH, "no", "neither an exception nor threads", capture_crash(process))


def _modules(process: Process) -> Iterator[Capability]:
    if not process.modules:
        yield Capability(Topic.MODULES, "no", "no module list", capture_map(process))
        return
    with_pdb = sum(module.pdb is not None for module in process.modules)
    reason = f"{plural(len(process.modules), 'module')}, {with_pdb} with PDB id"
    hint = "" if with_pdb else "--image-path DIR, with the files of the modules"
    yield Capability(Topic.MODULES, "yes" if with_pdb else "partly", reason, hint=hint)
