"""Capabilities: the questions that this dump answers, wholly, partly or not, and how to capture a better dump."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.process.model import Process
from heapdump.wording import plural

Answerable = Literal["yes", "partly", "no"]
_FULL_MEMORY = 0x2
"""MiniDumpWithFullMemory in the flags of the header."""

_UST, _HPA = 0x1000, 0x02000000
"""Bits of NtGlobalFlag: stack traces, page heap (heap-structures.md §1.3)."""

FULL_DUMP = "capture with full memory: procdump -ma <pid>"


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
    """The answer of this dump to the question of a topic, and why; `advice`: for a dump that answers more, or ""."""

    topic: Topic
    answer: Answerable
    reason: str
    advice: str = ""

    @property
    def question(self) -> str:
        """The question in the user's words."""
        return _QUESTIONS[self.topic][0]

    @property
    def title(self) -> str:
        """The question and the commands or facts that answer it: `question` in JSON."""
        return f"{self.question} ({_QUESTIONS[self.topic][1]})"


def capabilities(process: Process, heaps: Sequence[Heap], flags: int) -> tuple[Capability, ...]:
    """One for each topic, in the order of `Topic`. `flags`: MINIDUMP_TYPE bits of the header."""
    return (
        *_memory_map(process), *_heaps(process, heaps), *_blocks(process, heaps, flags), *_stacks(process, heaps),
        *_crash(process), *_modules(process),
    )  # fmt: skip


def _memory_map(process: Process) -> Iterator[Capability]:
    if process.regions.is_complete_map:
        yield Capability(Topic.MEMORY_MAP, "yes", f"memory map with {plural(len(process.regions), 'region')}")
    else:
        reason = "no memory map (MemoryInfoList): free and reserved memory is not known"
        yield Capability(Topic.MEMORY_MAP, "partly", reason, FULL_DUMP)


def _heaps(process: Process, heaps: Sequence[Heap]) -> Iterator[Capability]:
    verified = [heap for heap in heaps if heap.kind != HeapKind.UNKNOWN]
    has_lists = all(view.heap_list_complete for view in process.views)
    total = plural(len(heaps), "heap")
    if not verified:
        yield Capability(Topic.HEAPS, "no", "no heap header is in the dump", FULL_DUMP)
    elif has_lists and all(heap.is_fully_walked for heap in heaps):
        yield Capability(Topic.HEAPS, "yes", f"{total}, all lists whole")
    else:
        reason = f"{len(verified)} of {total} verified, some lists or inner parts not read (see heaps)"
        yield Capability(Topic.HEAPS, "partly", reason, "" if has_lists else FULL_DUMP)


def _blocks(process: Process, heaps: Sequence[Heap], flags: int) -> Iterator[Capability]:
    spans = [extent.span for heap in heaps for extent in heap.extents]
    committed = sum(process.regions.committed_bytes(span) for span in spans)
    if process.missing_bytes:
        reason = f"the file is cut: {process.missing_bytes:,} bytes of memory are missing"
        yield Capability(Topic.BLOCKS, "partly", reason, "copy the dump again, comparing sizes")
    elif flags & _FULL_MEMORY and committed:
        yield Capability(Topic.BLOCKS, "yes", "full memory")
    elif flags & _FULL_MEMORY:
        yield Capability(Topic.BLOCKS, "no", "full memory, but no heap could be located in it")
    else:
        yield Capability(Topic.BLOCKS, "no", "the dump was written without full memory", FULL_DUMP)


def _stacks(process: Process, heaps: Sequence[Heap]) -> Iterator[Capability]:
    image = (process.image or "app.exe").rpartition("\\")[2]
    advice = f"gflags /i {image} +ust, restart it, capture again with full memory"
    flags = [view.global_flag for view in process.views if view.global_flag is not None]
    if not flags:
        yield Capability(Topic.STACKS, "no", "the PEB is not in the dump, so its NtGlobalFlag is not known", advice)
    elif any(flag & (_UST | _HPA) for flag in flags) or any(heap.stack_traces for heap in heaps):
        yield Capability(Topic.STACKS, "yes", "stacks were recorded (NtGlobalFlag has +ust or page heap)")
    else:
        yield Capability(Topic.STACKS, "no", f"stacks were not recorded (NtGlobalFlag {flags[-1]:#x})", advice)


def _crash(process: Process) -> Iterator[Capability]:
    if process.exception is not None:
        yield Capability(Topic.CRASH, "yes", f"exception {process.exception.code:#010x} is recorded")
    elif process.threads:
        reason = "no exception: taken of a running process; the threads are there"
        yield Capability(Topic.CRASH, "partly", reason, "to catch the crash itself: procdump -ma -e <pid>")
    else:
        yield Capability(Topic.CRASH, "no", "neither an exception nor threads", FULL_DUMP)


def _modules(process: Process) -> Iterator[Capability]:
    if not process.modules:
        yield Capability(Topic.MODULES, "no", "no module list", FULL_DUMP)
        return
    with_pdb = sum(module.pdb is not None for module in process.modules)
    reason = f"{plural(len(process.modules), 'module')}, {with_pdb} with PDB id"
    yield Capability(Topic.MODULES, "yes" if with_pdb else "partly", reason)
