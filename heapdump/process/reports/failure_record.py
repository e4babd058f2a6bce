"""The failure record of ntdll, which it fills when it finds a heap damaged: _HEAP_FAILURE_INFORMATION.

The only parameter of STATUS_HEAP_CORRUPTION is the address of the record in ntdll's data. Its first members lie at the
same offsets in every version. The stack lies behind two encoded entries, behind one from Windows 10 1809 on
(heap-structures.md §7.1, recorded dumps).
"""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.process.model import Process, View

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


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """The record at `address`. `type`: its number; `names`: its meaning, two where the build does not decide.

    `heap`, `block` (the entry that failed), `previous`, `next`: addresses, 0 not said; `frames`: of the call that
    failed.
    """

    address: int
    type: int
    names: tuple[str, ...]
    heap: int
    block: int
    previous: int
    next: int
    frames: tuple[int, ...]

    @property
    def words(self) -> str:
        """The meaning, or both readings."""
        return " or ".join(self.names) if self.names else f"type {self.type}"


def read_failure(process: Process) -> FailureRecord | None:
    """The record behind the exception; None for other exceptions, and where it is not in the dump."""
    raised = process.exception
    if raised is None or raised.code != HEAP_CORRUPTION or not raised.parameters:
        return None
    address = raised.parameters[0]
    view = process.views[-1] if address < 1 << 32 else process.views[0]
    kind = view.space.try_integer(address + 8, 4)
    if kind is None:
        return None
    pointer = view.pointer_bytes
    first = address + (0x10 if pointer == 8 else 0xC)
    heap, block, _, _, _, previous, following = (view.space.try_pointer(first + i * pointer) or 0 for i in range(7))
    frames = _frames(process, view, address)
    return FailureRecord(
        address, kind, type_names(kind, process.windows.build), heap, block, previous, following, frames
    )


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
