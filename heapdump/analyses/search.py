"""Blocks that hold a byte string, a text or a pointer."""

from __future__ import annotations

import re

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
    """Those of the rows whose requested bytes hold one of the byte strings. Reads the memory of all rows once."""
    address, size = table.address[rows], table.size[rows]
    low, high = address.tolist(), (address + size).tolist()
    spans = merged(Span(a, b) for a, b in zip(low, high, strict=True))
    keep = np.zeros(len(rows), bool)
    longest = max(len(pattern) for pattern in wanted)
    for span in spans:
        for start in range(span.start, span.end, _WINDOW):
            piece = space.try_read(start, min(_WINDOW + longest, span.end - start))
            for pattern in wanted if piece else ():
                for match in re.finditer(re.escape(pattern), piece or b"", re.DOTALL):
                    at = start + match.start()
                    i = int(np.searchsorted(address, np.uint64(at), side="right")) - 1
                    if i >= 0 and at + len(pattern) <= high[i]:
                        keep[i] = True
    return rows[keep]
