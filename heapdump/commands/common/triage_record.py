"""The triage page as a JSON record (interface.md, triage)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.frames import place_name
from heapdump.commands.common.locks import hang_record
from heapdump.commands.common.next_command import command_text
from heapdump.commands.common.pointees import pointee_record
from heapdump.commands.common.thread_stacks import stack_frame_record
from heapdump.render.view import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.analyses.memory.capabilities import Capability
    from heapdump.analyses.triage.crash import CrashSection
    from heapdump.analyses.triage.holders import Holder
    from heapdump.analyses.triage.page import HeapSection, MemorySection, Triage
    from heapdump.commands.common.request import Request
    from heapdump.commands.common.unnamed_words import LargeMemory
    from heapdump.snapshot import Snapshot


def triage_record(request: Request, snapshot: Snapshot, page: Triage, unnamed: Sequence[LargeMemory]) -> Record:
    """Every section of the page; `crash` and `hang` are null where there is none. `unnamed`: of unknown memory."""
    return {
        "crash": None if page.crash is None else _crash(request, snapshot, page.crash),
        "hang": hang_record(snapshot, page.hang, page.hang_frames),
        "heap": _heap(page.heap),
        "memory": _memory(snapshot, page.memory) | {"largest_unknown": [one.record() for one in unnamed]},
        "who": [_holder(snapshot, holder) for holder in page.holders],
        "cannot": [_missed(one) for one in page.cannot],
        "next": [command_text(snapshot, command) for command in page.next],
    }


def crash_words(crash: CrashSection) -> str:
    """`exception 0xc0000005: access violation writing 0x10`."""
    return f"exception {crash.code:#010x}: {crash.words}"


def _crash(request: Request, snapshot: Snapshot, crash: CrashSection) -> Record:
    return {
        "code": f"{crash.code:#010x}",
        "words": crash.words,
        "thread": crash.thread,
        "address": hex(crash.address),
        "where": place_name(request, snapshot, crash.address),
        "text": crash_words(crash),
        "instruction": crash.instruction or None,
        "registers": [
            {"register": one.name, "value": hex(one.value), "points_to": pointee_record(one.pointee)}
            for one in crash.registers
        ],
        "frames": [stack_frame_record(found, args=False) for found in crash.frames],
    }


def _heap(heap: HeapSection) -> Record:
    verdict = heap.verdict
    return {
        "verdict": verdict.text,
        "errors": verdict.errors,
        "heaps": verdict.heaps,
        "unchecked": len(verdict.unchecked),
        "gaps": heap.gaps,
        "incidents": [
            {
                "incident": one.number, "bug": one.bug, "severity": one.severity,
                "heap": hex(one.heap) if one.heap else None, "block": hex(one.block.address) if one.block else None,
                "address": hex(one.address), "text": one.sentence,
            }
            for one in heap.incidents
        ],
    }  # fmt: skip


def _memory(snapshot: Snapshot, memory: MemorySection) -> Record:
    free, counters = memory.largest_free, snapshot.process.counters
    managed = memory.managed
    source = "windows" if memory.is_counted else "memory map"
    return {
        "private_bytes": memory.private_bytes,
        "private_bytes_from": None if memory.private_bytes is None else source,
        "working_set": counters.working_set if counters else None,
        "committed_bytes": memory.committed_bytes if memory.is_whole_process else None,
        "in_dump_bytes": memory.committed_bytes,
        "items": [{"item": i.words, "bytes": i.bytes, "share": i.share} for i in memory.items],
        "largest_allocatable": {"address": hex(free.address), "bytes": free.bytes} if free else None,
        "large_address_aware": memory.is_large_address_aware,
        "managed": None
        if managed is None
        else {
            "bytes": managed.bytes,
            "gc_heap_bytes": managed.objects,
            "native_heap_bytes": managed.native,
            "unknown_bytes": managed.unknown,
            "answer": managed.answer,
        },
    }


def _missed(one: Capability) -> Record:
    return {
        "id": one.topic,
        "question": one.question,
        "answer": one.answer,
        "reason": one.reason,
        "advice": one.advice or None,
        "capture": one.capture.command if one.capture else None,
        "estimated_bytes": one.capture.estimated_bytes if one.capture else None,
    }


def _holder(snapshot: Snapshot, holder: Holder) -> Record:
    return {
        "kind": holder.kind,
        "key": holder.key or None,
        "blocks": holder.blocks,
        "bytes": holder.bytes,
        "share": holder.share,
        "of_bytes": holder.of_bytes,
        "heaps": [hex(heap) for heap in holder.heaps],
        "address": None if holder.address is None else hex(holder.address),
        "text": holder.sentence,
        "command": command_text(snapshot, holder.command),
    }
