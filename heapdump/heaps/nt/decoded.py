"""Decodes one entry header of an NT heap for a person."""

from __future__ import annotations

import numpy as np

from heapdump.blocks.decoded import Decoded
from heapdump.blocks.heap import Heap
from heapdump.heaps.integers import signed64
from heapdump.heaps.nt.entry_format import entry_format_of
from heapdump.heaps.nt.header_word import decode_headers
from heapdump.process.model import View

_WORD_BYTES = 8


def decode_header(view: View, heap: Heap, data: bytes) -> Decoded | None:
    """`data` with the header at its start decoded; None where it is shorter than a header.

    Not for LFH blocks, whose headers have another encoding; the caller knows them by the block table.
    """
    entry_format = entry_format_of(view, heap)
    at = entry_format.word_offset
    if len(data) < at + _WORD_BYTES:
        return None
    word = int.from_bytes(data[at : at + _WORD_BYTES], "little")
    if entry_format.is_pre_vista or not entry_format.key:
        return Decoded(data, "headers of this heap are not encoded")
    headers = decode_headers(entry_format, np.array([signed64(word)], np.int64))
    plain = (word ^ entry_format.unsigned_key).to_bytes(_WORD_BYTES, "little")
    words = f"decoded with _HEAP.Encoding {entry_format.unsigned_key:#x}"
    holds = bool(headers.holds[0]) if entry_format.mask else None
    return Decoded(data[:at] + plain + data[at + _WORD_BYTES :], words, holds)
