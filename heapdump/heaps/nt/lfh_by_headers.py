"""Finds user blocks of the LFH whose own entry could not be placed, by the headers of their blocks.

With the key of the process, the header of an LFH block names its user blocks (`lfh_encoding`): from 8.1 on by its
distance from them, before by its subsegment, which points to them. Two headers that name the same user blocks are
evidence. So is one header, where the entry behind also names them by PreviousSize. Stale headers all belong to free
blocks, because the LFH returns user blocks when their last block is freed. So user blocks without a busy block are left
out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.integers import signed64
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.lfh_encoding import BlockCoding, block_coding
from heapdump.heaps.nt.lfh_user_blocks import UserArea
from heapdump.heaps.nt.unplaced_spans import UnplacedSpan
from heapdump.heaps.nt.unused_bytes import USUAL_PREFIX
from heapdump.heaps.nt.windows import Window
from heapdump.spans import Span

_LEAST_EQUAL = 2
"""Number of headers that must name the same user blocks. By chance a granule does so at most once in 65,536 times."""

MOST_SHORT_BYTES = 1 << 12
"""Bytes of a span that are read at once."""

_MOST_BYTES = 1 << 20
"""The largest distance of a block from its user blocks; the code has 19 or 20 bits for it."""


def has_no_lfh_header(context: HeapContext, span: Span) -> bool:
    """True for a short span that is in the dump and where no word has the mark of an LFH header."""
    data = context.space.try_read(span.start, span.size) if span.size <= MOST_SHORT_BYTES else None
    if not data:
        return False
    entry_format = context.entry_format
    words = np.frombuffer(data, "<i8", len(data) // 8)[entry_format.word_index :: entry_format.stride]
    return not block_coding(entry_format).are_lfh(words).any()


def unplaced_user_areas(
    context: HeapContext, window: Window, unplaced: UnplacedSpan, key: int | None
) -> list[UserArea]:
    """The user areas that begin in the walked part of the window, in an unplaced span; ascending by address.

    Where only the next entry names the user blocks, there are two overlapping areas: with and without front prefix.
    """
    part = window.run_parts[0]
    granules = np.arange(part.start, part.end)
    entry_format, coding = context.entry_format, block_coding(context.entry_format)
    words = window.words[granules * entry_format.stride + entry_format.word_index]
    marked = np.flatnonzero(coding.are_lfh(words))  # missing words are zero and lack the mark
    if not len(marked):
        return []
    words, entries = words[marked], part.base + granules[marked] * window.granule
    named = np.empty(0, np.int64) if key is None else _named(context, coding, words, entries, key)
    values, counts = np.unique(named, return_counts=True)
    own = _user_addresses(context, unplaced)
    has_evidence = (counts >= _LEAST_EQUAL) | np.isin(values, own)
    addresses = values[has_evidence].tolist()
    is_unconfirmed = not any(address in own for address in addresses)
    low, high = max(window.span.start, unplaced.span.start + window.granule), window.span.end
    starts = sorted(address for address in addresses if low <= address < high)
    areas = [_area(context, unplaced, start, starts[i + 1 : i + 2]) for i, start in enumerate(starts)]
    areas += [_area(context, unplaced, start, []) for start in own if is_unconfirmed and low <= start < high]
    return areas


def _user_addresses(context: HeapContext, unplaced: UnplacedSpan) -> list[int]:
    """Where the user data of the last entry of the span may begin: behind its header, and behind a front prefix."""
    if unplaced.entry is None:
        return []
    granule = context.entry_format.granule
    return [unplaced.entry + granule, unplaced.entry + (1 + USUAL_PREFIX) * granule]


def _area(context: HeapContext, unplaced: UnplacedSpan, start: int, following: list[int]) -> UserArea:
    """The area from `start` to the next user blocks, to the last entry, or to the end of the span.

    `following`: address of the next user blocks, if there are any.
    """
    end = unplaced.span.end
    if unplaced.entry is not None and start <= unplaced.entry:
        end = unplaced.entry
    if following:
        end = min(end, following[0] - context.entry_format.granule)
    return UserArea(start, end - start, end - start, has_signature=False)


def _named(
    context: HeapContext, coding: BlockCoding, words: NDArray[np.int64], entries: NDArray[np.int64], key: int
) -> NDArray[np.int64]:
    """The addresses of the user blocks that these headers name; headers that name none are left out."""
    user = _by_subsegment if coding.names_subsegment else _by_distance
    return user(context, coding, words, entries, key)


def _by_distance(
    context: HeapContext, coding: BlockCoding, words: NDArray[np.int64], entries: NDArray[np.int64], key: int
) -> NDArray[np.int64]:
    """8.1 and later: by the distance in the code; the bits below it must be 0."""
    constant = signed64(coding.constant(key, context.address, 0))
    code = (words ^ entries >> coding.shift ^ constant) & coding.mask
    distance = code >> coding.distance_shift
    fits = (code & (1 << coding.distance_shift) - 1 == 0) & (distance % context.entry_format.granule == 0)
    fits &= distance > 0
    named: NDArray[np.int64] = (entries - distance)[fits]
    return named


def _by_subsegment(
    context: HeapContext, coding: BlockCoding, words: NDArray[np.int64], entries: NDArray[np.int64], key: int
) -> NDArray[np.int64]:
    """Before 8.1: by UserBlocks of the subsegment in the code."""
    subsegments = coding.subsegments(coding.constants(words, entries, 0), key, context.address)
    struct = context.layout["_HEAP_SUBSEGMENT"]
    places = (subsegments + struct.offset("UserBlocks")).astype(np.uint64)
    back, is_present = context.space.mapped.gather(places, context.view.pointer_bytes)
    user = back.astype(np.int64)
    fits = is_present & (user < entries) & (entries - user < _MOST_BYTES)
    named: NDArray[np.int64] = user[fits]
    return named
