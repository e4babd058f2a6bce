"""Decodes encoded structures of a segment heap for a person, with the keys that its walk has found."""

from __future__ import annotations

from heapdump.blocks.decoded import Decoded
from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import HeapFacts
from heapdump.layouts import load
from heapdump.process.model import View

_U32 = 0xFFFFFFFF
_CHUNK_HEADERS = ("_HEAP_VS_CHUNK_HEADER", "_HEAP_VS_CHUNK_FREE_HEADER")
_SUBSEGMENT = "_HEAP_LFH_SUBSEGMENT"


def decode(view: View, heap: Heap, facts: HeapFacts, name: str, address: int, data: bytes) -> Decoded | None:
    """A decoded VS chunk header, or header of an LFH subsegment (heap-structures.md §6.4, §6.5).

    None for other structures, and where the walk has found no key. `data`: the bytes of the structure, from `address`
    on.
    """
    if name in _CHUNK_HEADERS:
        return _chunk(view, facts.get("vs_key"), address, data)
    if name == _SUBSEGMENT and heap.layout is not None:
        return _subsegment(heap.layout, facts, address, data)
    return None


def _chunk(view: View, key: object, address: int, data: bytes) -> Decoded | None:
    size = view.pointer_bytes
    if not isinstance(key, int) or len(data) < size:
        return None
    mask = (1 << 8 * size) - 1
    word = (int.from_bytes(data[:size], "little") ^ address ^ key) & mask
    return Decoded(
        word.to_bytes(size, "little") + data[size:], f"decoded with its address and the HeapKey {key & mask:#x}"
    )


def _subsegment(layout_name: str, facts: HeapFacts, address: int, data: bytes) -> Decoded | None:
    key, other = facts.get("lfh_key"), facts.get("lfh_layout")
    layout = load(other if isinstance(other, str) else layout_name)
    if not isinstance(key, int) or _SUBSEGMENT not in layout or "BlockOffsets" not in layout[_SUBSEGMENT]:
        return None
    at = layout[_SUBSEGMENT].offset("BlockOffsets")
    if len(data) < at + 4:
        return None
    own = address >> 12 & _U32 if facts.get("lfh_shifts_first") else (address & _U32) >> 12
    word = int.from_bytes(data[at : at + 4], "little") ^ key & _U32 ^ own
    plain = data[:at] + word.to_bytes(4, "little") + data[at + 4 :]
    return Decoded(plain, f"BlockOffsets decoded with its address and the LfhKey {key & _U32:#x}")
