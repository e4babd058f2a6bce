"""The failure record of ntdll, which it fills when it finds a heap damaged: _HEAP_FAILURE_INFORMATION.

The only parameter of STATUS_HEAP_CORRUPTION is the address of the record in ntdll's data. Its first members lie at the
same offsets in every version; Windows 7 and 8.1 leave Version and StructureSize 0. The stack lies behind two encoded
entries, behind one from Windows 10 1809 on (heap-structures.md §7.1, recorded dumps).

A dump that was taken while the error box stood, or at the breakpoint in ntdll, has no such exception in its exception
stream. Then the EXCEPTION_RECORD lies on the stack of the thread that failed, or the record is in ntdll's data alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from heapdump.process.model import Module, Process, Thread, View
from heapdump.spans import Span

HEAP_CORRUPTION = 0xC0000374
_STACK_DEPTH = 32
_NEWER_FROM = 19041
_OLDER_UP_TO = 9600
_COMMON = (
    "internal", "unknown", "generic", "entry_corruption", "multiple_entries_corruption", "virtual_block_corruption",
    "buffer_overrun", "buffer_underrun", "block_not_busy", "invalid_argument",
)  # fmt: skip
_OLDER = (
    *_COMMON, "usage_after_free", "cross_heap_operation", "freelists_corruption", "listentry_corruption",
    "lfh_bitmap_mismatch", "segment_lfh_bitmap_corruption", "segment_lfh_double_free", "vs_subsegment_corruption",
    "null_heap",
)  # fmt: skip
_NEWER = (
    *_COMMON, "invalid_allocation_type", *_OLDER[10:], "allocation_limit", "commit_limit", "invalid_va_mgr_query",
    "segment_lfh_delay_free_corruption",
)  # fmt: skip


_VERSIONS, _TYPES, _MOST_BYTES = range(4), range(1, 26), 0x2000
"""Version, FailureType and largest StructureSize of a record in ntdll's data."""


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """The record at `address`. `type`: its number; `names`: its meaning, two where the build does not decide.

    `heap`, `block` (the entry that failed), `previous`, `next`: addresses, 0 not said; `frames`: of the call that
    failed. `witness`: where the record was found; `thread_id`: of the thread that failed, None where it is not known.
    """

    address: int
    type: int
    names: tuple[str, ...]
    heap: int
    block: int
    previous: int
    next: int
    frames: tuple[int, ...]
    pointer_bytes: int
    witness: str
    thread_id: int | None

    @property
    def words(self) -> str:
        """The meaning, or both readings."""
        return " or ".join(self.names) if self.names else f"type {self.type}"

    @property
    def span(self) -> Span:
        """The members that are the same in every version, and the stack."""
        return Span(self.address, self.address + 0x68 + _STACK_DEPTH * self.pointer_bytes)


def find_failure(process: Process, heaps: Sequence[int]) -> FailureRecord | None:
    """The record that the exception names, else the one that a thread's stack names, else the one in ntdll's data.

    `heaps`: addresses of the heaps, which a record in ntdll's data must name. None where no heap failed, and where the
    record is not in the dump.
    """
    raised = process.exception
    if raised is not None and raised.code == HEAP_CORRUPTION and raised.parameters:
        found = read_record(process, raised.parameters[0], "the exception's parameter")
        return None if found is None else replace(found, thread_id=raised.thread_id)
    for thread in process.threads:
        for record, address in _on_stack(process, thread):
            found = read_record(process, address, f"the exception record at {record:#x} on the stack")
            if found is not None and found.heap:
                return replace(found, thread_id=thread.id)
    return next(_in_ntdll(process, heaps), None)


def missing_record(process: Process) -> int | None:
    """The address of the record where the exception names one that is not in the dump; None in every other case."""
    raised = process.exception
    if raised is None or raised.code != HEAP_CORRUPTION or not raised.parameters:
        return None
    return raised.parameters[0] if read_record(process, raised.parameters[0], "") is None else None


def read_record(process: Process, address: int, witness: str) -> FailureRecord | None:
    """The record at an address; None where its first members are not in the dump."""
    view = process.views[-1] if address < 1 << 32 else process.views[0]
    kind = view.space.try_integer(address + 8, 4)
    if kind is None:
        return None
    pointer = view.pointer_bytes
    first = address + (0x10 if pointer == 8 else 0xC)
    heap, block, _, _, _, previous, following = (view.space.try_pointer(first + i * pointer) or 0 for i in range(7))
    return FailureRecord(
        address, kind, type_names(kind, process.windows.build), heap, block, previous, following,
        _frames(process, view, address), pointer, witness, None,
    )  # fmt: skip


def _on_stack(process: Process, thread: Thread) -> Iterator[tuple[int, int]]:
    """(address of an EXCEPTION_RECORD of STATUS_HEAP_CORRUPTION on the stack, its parameter), the deepest first.

    Its members: code u32, flags u32, record, address, number of parameters u32 (and padding on x64), parameters.
    """
    for stack in thread.stacks:
        view = next(view for view in process.views if view.arch == stack.view)
        pointer = view.pointer_bytes
        count_at, parameter_at = (0x18, 0x20) if pointer == 8 else (0x10, 0x14)
        for base, words in view.space.mapped.words(Span(stack.limit, stack.base), pointer):
            for i in np.flatnonzero(words & 0xFFFFFFFF == HEAP_CORRUPTION).tolist():
                record = base + i * pointer
                address = view.space.try_pointer(record + parameter_at) or 0
                if view.space.try_integer(record + count_at, 4) == 1 and _is_ntdll(process.module_map.at(address)):
                    yield record, address


def _in_ntdll(process: Process, heaps: Sequence[int]) -> Iterator[FailureRecord]:
    """Records in ntdll's data: a type, one of the heaps, and a stack that begins in ntdll."""
    for module in process.modules:
        if not _is_ntdll(module):
            continue
        view = process.views[0] if module.span.start >= 1 << 32 else process.views[-1]
        wanted = np.array(heaps, np.uint64)
        for base, words in view.space.mapped.words(module.span, view.pointer_bytes):
            for i in np.flatnonzero(np.isin(words, wanted)).tolist():
                address = base + i * view.pointer_bytes - (0x10 if view.pointer_bytes == 8 else 0xC)
                if _is_record(view, address):
                    found = read_record(process, address, f"ntdll's data ({process.where(address)})")
                    if found is not None and found.frames and _is_ntdll(process.module_map.at(found.frames[0])):
                        yield found


def _is_record(view: View, address: int) -> bool:
    version, size, kind = (view.space.try_integer(address + at, 4) for at in (0, 4, 8))
    return version in _VERSIONS and kind in _TYPES and size is not None and size <= _MOST_BYTES


def _is_ntdll(module: Module | None) -> bool:
    return module is not None and module.name.lower() == "ntdll.dll"


def type_names(kind: int, build: int | None) -> tuple[str, ...]:
    """The names of a failure type; two where the build does not decide between both numberings (semantics.md §2.5)."""
    older = _OLDER[kind : kind + 1]
    newer = _NEWER[kind : kind + 1]
    if build is not None and build >= _NEWER_FROM:
        return newer
    if build is not None and build <= _OLDER_UP_TO:
        return older
    return tuple(dict.fromkeys((*older, *newer)))


def _frames(process: Process, view: View, address: int) -> tuple[int, ...]:
    """The stack of the record: where its first word is an address in a module."""
    pointer = view.pointer_bytes
    for start in (0x58, 0x68) if pointer == 8 else (0x30, 0x38):
        words = [view.space.try_pointer(address + start + i * pointer) or 0 for i in range(_STACK_DEPTH)]
        if process.module_map.at(words[0]) is not None:
            return tuple(words[: words.index(0)] if 0 in words else words)
    return ()
