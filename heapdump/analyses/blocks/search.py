"""Blocks that hold a byte string, a text or a pointer."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.errors import WrongUsage
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span, merged

_WINDOW = 8 << 20
"""Bytes that are read at once."""


def patterns(text: str, pointer_sizes: tuple[int, ...]) -> tuple[bytes, ...]:
    """The byte strings to search for: of a pointer `0x29fb0000`, of bytes `hex:de ad be ef`, else of a text.

    A pointer has one for each of `pointer_sizes` (bytes) that holds it, 8 bytes where none does; a text has UTF-8 and
    UTF-16.

    Raises:
        WrongUsage: the text is empty, or no hex digits follow `hex:`.
    """
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text):
        value = int(text, 16)
        fitting = [size for size in pointer_sizes if value < 1 << 8 * size] or [8]
        return tuple(value.to_bytes(size, "little") for size in fitting)
    if text.startswith("hex:"):
        try:
            found = bytes.fromhex(text[4:])
        except ValueError as error:
            raise WrongUsage(f"{text!r} is no byte string; write hex:de ad be ef") from error
        if found:
            return (found,)
    elif text:
        return text_bytes(text)
    raise WrongUsage("nothing to look for: name a text, 0x…, or hex:…")


def text_bytes(text: str) -> tuple[bytes, bytes]:
    """A text in UTF-8 and UTF-16; a byte of the command line that is no text (`\\udcff`) stays that byte."""
    try:
        narrow = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair
        narrow = text.encode("utf-8", "surrogatepass")
    return narrow, text.encode("utf-16-le", "surrogatepass")


def containing(
    table: BlockTable, space: AddressSpace, rows: NDArray[np.int64], wanted: tuple[bytes, ...]
) -> NDArray[np.int64]:
    """The rows whose requested bytes hold one of the byte strings. Reads the memory of all rows once.

    Of blocks inside each other a place belongs to the block that starts last.
    """
    address, size = table.address[rows], table.size[rows]
    starts, ends = address.tolist(), (address + size).tolist()
    spans = merged(Span(start, end) for start, end in zip(starts, ends, strict=True))
    is_match = np.zeros(len(rows), bool)
    longest = max(len(pattern) for pattern in wanted)
    for part in chain.from_iterable(_pieces(space, span) for span in spans):
        for start in range(part.start, part.end, _WINDOW):
            data = space.try_read(start, min(_WINDOW + longest, part.end - start))
            for pattern in wanted if data else ():
                is_match[list(_matches(data or b"", start, pattern, starts, ends))] = True
    return rows[is_match]


def _pieces(space: AddressSpace, span: Span) -> list[Span]:
    """The span; of one beyond a window the parts in the dump: a damaged size can claim terabytes."""
    return [span] if span.size <= _WINDOW else merged(space.mapped.present(span))


def _matches(data: bytes, base: int, pattern: bytes, starts: list[int], ends: list[int]) -> Iterator[int]:
    """Indices of the blocks [starts, ends) that hold the pattern in the memory `data` at `base`, each once."""
    at = data.find(pattern)
    while at >= 0:
        i = bisect_right(starts, base + at) - 1
        if base + at + len(pattern) <= ends[i]:
            yield i
        if i + 1 == len(starts):
            return
        at = data.find(pattern, starts[i + 1] - base)  # a second match in block i adds nothing
