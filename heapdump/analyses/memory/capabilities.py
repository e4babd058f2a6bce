"""What this dump can and cannot answer, why, and how to capture one that can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import HeapKind
from heapdump.process.model import Process
from heapdump.wording import plural

Answerable = Literal["yes", "partly", "no"]
_FULL_MEMORY = 0x2
_UST = 0x1000
_HPA = 0x02000000
FULL_DUMP = "capture with full memory: procdump -ma <pid>"


@dataclass(frozen=True, slots=True)
class Question:
    """A question in the user's words; `reason` why it can or cannot be answered; `advice` for a better dump, or ""."""

    question: str
    answer: Answerable
    reason: str
    advice: str


def capabilities(process: Process, heaps: Sequence[Heap], flags: int) -> tuple[Question, ...]:
    """Every question heapdump is asked, for this dump. `flags`: MINIDUMP_TYPE bits of its header."""
    return (
        *_memory_map(process), *_heaps(process, heaps), *_blocks(process, heaps, flags), *_stacks(process, heaps),
        *_crash(process), *_modules(process),
    )  # fmt: skip


def _memory_map(process: Process) -> Iterator[Question]:
    question = "where did the memory go? (summary, regions)"
    if process.regions.is_complete_map:
        yield Question(question, "yes", f"memory map with {plural(len(process.regions), 'region')}", "")
    else:
        reason = "no memory map (MemoryInfoList): free and reserved memory is not known"
        yield Question(question, "partly", reason, FULL_DUMP)


def _heaps(process: Process, heaps: Sequence[Heap]) -> Iterator[Question]:
    question = "which heaps are there, and how large? (heaps)"
    certain = [heap for heap in heaps if heap.kind != HeapKind.UNKNOWN]
    lists = all(view.heap_list_complete for view in process.views)
    if not certain:
        yield Question(question, "no", "no heap header is in the dump", FULL_DUMP)
    elif lists and all(heap.is_fully_walked for heap in heaps):
        yield Question(question, "yes", f"{plural(len(heaps), 'heap')}, all lists whole", "")
    else:
        reason = (
            f"{len(certain)} of {plural(len(heaps), 'heap')} verified, some lists or inner parts not read (see heaps)"
        )
        yield Question(question, "partly", reason, "" if lists else FULL_DUMP)


def _blocks(process: Process, heaps: Sequence[Heap], flags: int) -> Iterator[Question]:
    question = "what is in the blocks? (heap, blocks, virt-blocks, block)"
    spans = [extent.span for heap in heaps for extent in heap.extents]
    committed = sum(process.regions.committed_bytes(span) for span in spans)
    if process.missing_bytes:
        reason = f"the file is cut: {process.missing_bytes:,} bytes of memory are missing"
        yield Question(question, "partly", reason, "copy the dump again, comparing sizes")
    elif flags & _FULL_MEMORY and committed:
        yield Question(question, "yes", "full memory", "")
    elif flags & _FULL_MEMORY:
        yield Question(question, "no", "full memory, but no heap could be located in it", "")
    else:
        yield Question(question, "no", "the dump was written without full memory", FULL_DUMP)


def _stacks(process: Process, heaps: Sequence[Heap]) -> Iterator[Question]:
    question = "who allocated a block? (allocation stacks)"
    image = (process.image or "app.exe").rpartition("\\")[2]
    advice = f"gflags /i {image} +ust, restart it, capture again with full memory"
    flags = [view.global_flag for view in process.views if view.global_flag is not None]
    if not flags:
        yield Question(question, "no", "the PEB is not in the dump, so its NtGlobalFlag is not known", advice)
    elif any(flag & (_UST | _HPA) for flag in flags) or any(heap.stack_traces for heap in heaps):
        yield Question(question, "yes", "stacks were recorded (NtGlobalFlag has +ust or page heap)", "")
    else:
        yield Question(question, "no", f"stacks were not recorded (NtGlobalFlag {flags[-1]:#x})", advice)


def _crash(process: Process) -> Iterator[Question]:
    question = "what happened? (exception, thread registers)"
    if process.exception is not None:
        yield Question(question, "yes", f"exception {process.exception.code:#010x} is recorded", "")
    elif process.threads:
        yield Question(question, "partly", "no exception: taken of a running process; the threads are there",
                       "to catch the crash itself: procdump -ma -e <pid>")  # fmt: skip
    else:
        yield Question(question, "no", "neither an exception nor threads", FULL_DUMP)


def _modules(process: Process) -> Iterator[Question]:
    question = "which code is it? (modules, PDB ids)"
    with_pdb = sum(module.pdb is not None for module in process.modules)
    if not process.modules:
        yield Question(question, "no", "no module list", FULL_DUMP)
    else:
        answer: Answerable = "yes" if with_pdb else "partly"
        yield Question(question, answer, f"{plural(len(process.modules), 'module')}, {with_pdb} with PDB id", "")
