"""Compiled Java methods: the blob of the code cache that holds an address, and the method it was compiled from.

A code heap has a map with one byte for each segment: 0 at the first segment of a block, else the number of segments to
go back, at most 254 at a time, ff for free (HotSpot: heap.hpp). A block is a HeapBlock and behind it a CodeBlob.
"""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.runtimes.java.object_heap import class_name
from heapdump.runtimes.java.vm_structs import VmStructs
from heapdump.runtimes.runtime import CodePlace
from heapdump.spans import Span
from heapdump.trust import Trust

_FREE, _MOST_HOPS, _MOST_HEAPS = 0xFF, 1 << 16, 16
_METHODS = ("nmethod", "native nmethod")


class CodeCache:
    """The code heaps of one VM."""

    def __init__(self, structs: VmStructs) -> None:
        """Reads nothing yet."""
        self._structs = structs

    def span(self) -> Span | None:
        """All of the code cache; None where it is not known."""
        low, high = (self._structs.static("CodeCache", name) for name in ("_low_bound", "_high_bound"))
        return Span(low, high) if low and high and low < high else None

    def place(self, address: int) -> CodePlace | None:
        """The method or stub that holds an address; None outside, and in free parts."""
        for heap in self._heaps():
            blob = self._blob(heap, address)
            if blob is not None:
                return self._place(blob)
        return None

    def _heaps(self) -> Iterator[int]:
        structs = self._structs
        array = structs.static("CodeCache", "_heaps")
        count = structs.member(array, "GrowableArrayBase", "_len", 4) or 0
        data = structs.member(array, "GrowableArray<int>", "_data")
        for i in range(min(count, _MOST_HEAPS) if data else 0):
            heap = structs.space.try_pointer((data or 0) + i * structs.space.pointer_bytes)
            if heap:
                yield heap

    def _blob(self, heap: int, address: int) -> int | None:
        """The CodeBlob of the block that holds an address."""
        structs = self._structs
        memory, segment_map = (structs.inside(heap, "CodeHeap", name) for name in ("_memory", "_segmap"))
        low, high = (structs.member(memory, "VirtualSpace", name) for name in ("_low", "_high"))
        first = structs.member(segment_map, "VirtualSpace", "_low")
        shift = structs.member(heap, "CodeHeap", "_log2_segment_size", 4)
        if low is None or high is None or not first or shift is None or shift > 16 or not low <= address < high:
            return None
        segment = (address - low) >> shift
        for _ in range(_MOST_HOPS):
            mark = structs.space.try_integer(first + segment, 1)
            if mark is None or mark == _FREE or mark > segment:
                return None
            if mark == 0:
                header = structs.sizes.get("HeapBlock", 2 * structs.space.pointer_bytes)
                return low + (segment << shift) + header
            segment -= mark
        return None

    def _place(self, blob: int) -> CodePlace | None:
        structs = self._structs
        name = structs.text(structs.member(blob, "CodeBlob", "_name"))
        start = blob + (structs.member(blob, "CodeBlob", "_code_offset", 4) or 0)
        if not name:
            return None
        if name not in _METHODS:
            return CodePlace("stub", start, note=f"Java VM: {name}", trust=Trust.DERIVED)
        method = structs.member(blob, "nmethod", "_method")
        named = self._method(method)
        if named is None:
            return CodePlace("method", start, note="Java compiled code", trust=Trust.GUESS)
        is_current = structs.member(method, "Method", "_code") == blob
        return CodePlace("method", start, *named, descriptor=method, trust=Trust.EXACT if is_current else Trust.DERIVED)

    def _method(self, method: int | None) -> tuple[str, str] | None:
        """(class, method) of a Method."""
        structs = self._structs
        constant = structs.member(method, "Method", "_constMethod")
        pool = structs.member(constant, "ConstMethod", "_constants")
        index = structs.member(constant, "ConstMethod", "_name_index", 2)
        holder = structs.member(pool, "ConstantPool", "_pool_holder")
        size = structs.sizes.get("ConstantPool")
        if not pool or not index or size is None:
            return None
        name = structs.symbol(structs.space.try_pointer(pool + size + index * structs.space.pointer_bytes))
        owner = structs.symbol(structs.member(holder, "Klass", "_name"))
        return (class_name(owner), name) if name and owner else None
