"""Blocks that hold a byte string, a text or a pointer."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.errors import WrongUsage
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span, merged

_WINDOW = 8 << 20


def patterns(text: str, pointer_sizes: tuple[int, ...]) -> tuple[bytes, ...]:
    """What to look for: `0x29fb0000` a pointer, `hex:de ad be ef` bytes, anything else a text (ASCII and UTF-16).

    Raises:
        WrongUsage: nothing to look for, or bytes that are none.
    """
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text):
        value = int(text, 16)
        return tuple(value.to_bytes(size, "little") for size in pointer_sizes if value < 1 << 8 * size)
    if text.startswith("hex:"):
        try:
            found = bytes.fromhex(text[4:])
        except ValueError as error:
            raise WrongUsage(f"{text!r} is no byte string; write hex:de ad be ef") from error
        if found:
            return (found,)
    elif text:
        return text.encode("utf-8"), text.encode("utf-16-le")
    raise WrongUsage("nothing to look for: name a text, 0x…, or hex:…")


def containing(
    table: BlockTable, space: AddressSpace, rows: NDArray[np.int64], wanted: tuple[bytes, ...]
) -> NDArray[np.int64]:
    """Those of the rows whose requested bytes hold one of the byte strings. Reads the memory of all rows once.

    Of blocks inside each other a place belongs to the one that starts last.
    """
    address, size = table.address[rows], table.size[rows]
    low, high = address.tolist(), (address + size).tolist()
    spans = merged(Span(a, b) for a, b in zip(low, high, strict=True))
    keep = np.zeros(len(rows), bool)
    longest = max(len(pattern) for pattern in wanted)
    for span in spans:
        for start in range(span.start, span.end, _WINDOW):
            piece = space.try_read(start, min(_WINDOW + longest, span.end - start))
            for pattern in wanted if piece else ():
                keep[list(_holders(piece or b"", start, pattern, low, high))] = True
    return rows[keep]


def _holders(piece: bytes, start: int, pattern: bytes, low: list[int], high: list[int]) -> Iterator[int]:
    """The blocks [low, high) that hold the pattern, of those in the memory `piece` at `start`; one search for each."""
    at = piece.find(pattern)
    while at >= 0:
        i = bisect_right(low, start + at) - 1
        if start + at + len(pattern) <= high[i]:
            yield i
        if i + 1 == len(low):
            return
        at = piece.find(pattern, low[i + 1] - start)  # what else block i may hold says nothing new
