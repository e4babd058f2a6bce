"""Signatures of page segments, which hold the process' HeapKey (docs/reference/heap-structures.md §6.3, §6.9).

    Signature = segment ^ anchor ^ HeapKey ^ constant          from 15063 on; 26100 without the constant
    Signature = segment >> 20 ^ anchor ^ HeapKey ^ constant    14393, recorded

`segment` is the address of the segment, `anchor` that of its list (`header.SegContext`). A *decoded signature* is the
signature without these two terms: HeapKey ^ constant, or HeapKey. It is equal in all segments of a process.
"""

from __future__ import annotations

from heapdump.layouts import Layout
from heapdump.process.model import View

_CONSTANT = 0xA2E64EADA2E64EAD


def decoded_signatures(view: View, layout: Layout, anchor: int, segment: int) -> tuple[int, ...]:
    """The decoded signature of a segment under each of the two encodings; () where the signature is not in the dump."""
    place = segment + layout["_HEAP_PAGE_SEGMENT"].offset("Signature")
    signature = view.space.try_pointer(place)
    return () if signature is None else (signature ^ segment ^ anchor, signature ^ segment >> 20 ^ anchor)


def possible_heap_keys(view: View, decoded: int) -> tuple[int, int]:
    """The two possible HeapKeys by a decoded signature: with the constant, as in most builds, and without it."""
    return decoded ^ _CONSTANT & (1 << 8 * view.pointer_bytes) - 1, decoded
