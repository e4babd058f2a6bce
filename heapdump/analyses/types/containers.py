"""Blocks that begin with a string or an array of the C++ library, or that are a BSTR.

Visual C++ lays out its containers so, release builds only (debug builds put more members before):

    std::string  { 16 bytes: the text, or a pointer to it; size; capacity }    size and capacity in characters
    std::vector  { begin; end; end of capacity }                               pointers
    BSTR         { length in bytes, uint32; UTF-16 text; a 16-bit zero }       x64: the length is bytes 4-7 of 8

Two witnesses: the capacity is that of the block that the pointer leads to (15 or 7 for a text inside the object), and a
zero lies behind the text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.types.block_starts import START_BYTES, BlockStarts, room_at
from heapdump.process.model import View

Mask = NDArray[np.bool_]
_SHORTEST_BSTR_BYTES = 6
"""Of text. The start of a shorter one looks like a small number and another small number."""

_SCRIPTS = (
    (0x20, 0x7E),
    (0x09, 0x0D),
    (0xA0, 0x52F),
    (0x2010, 0x2030),
    (0x3000, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xFF00, 0xFFEF),
)
"""UTF-16 units, first and last, that count as text: Latin, Greek, Cyrillic, Chinese, Japanese, Korean."""

IS_WIDE_TEXT = np.zeros(1 << 16, bool)
"""True for units of UTF-16 that count as text."""

for _low, _high in _SCRIPTS:
    IS_WIDE_TEXT[_low : _high + 1] = True
IS_TEXT = np.zeros(1 << 8, bool)
IS_TEXT[0x09:0x0E] = IS_TEXT[0x20:0x7F] = IS_TEXT[0x80:] = True
"""Bytes that count as text: of ASCII, of code pages and of UTF-8."""


def is_bstr(view: View, starts: BlockStarts) -> Mask:
    """True for a BSTR; (n,) bool."""
    header, size = view.pointer_bytes, starts.size.astype(np.int64)
    length = starts.raw[:, header - 4 : header].copy().view("<u4")[:, 0].astype(np.int64)
    mask: Mask = (length >= _SHORTEST_BSTR_BYTES) & (length % 2 == 0) & (header + length + 2 <= size)
    candidates = np.flatnonzero(mask)
    units = starts.raw[candidates, header:].copy().view("<u2")
    mask[candidates] = _begins_with_text(units, length[candidates] // 2, IS_WIDE_TEXT)
    mask[mask] = _ends_in_zero(view, starts.address[mask] + np.uint64(header), length[mask].astype(np.uint64), 2)
    return mask


def is_string(view: View, starts: BlockStarts, width: int) -> Mask:
    """True for a std::string (`width` 1) or std::wstring (`width` 2, bytes of a character); (n,) bool.

    Never for an empty string that holds its text itself: it begins with zeros.
    """
    mask = np.zeros(len(starts.size), bool)
    pointer, inline_capacity = view.pointer_bytes, START_BYTES // width - 1
    units = starts.raw.view(f"<u{width}")
    is_text = IS_TEXT if width == 1 else IS_WIDE_TEXT
    begins = is_text[units[:, 0]] | (starts.words[0] >= 0x10000)
    candidates = np.flatnonzero((starts.size >= np.uint64(START_BYTES + 2 * pointer)) & begins)
    members = starts.address[candidates] + np.uint64(START_BYTES)
    size, _ = view.space.mapped.gather(members, pointer)
    capacity, _ = view.space.mapped.gather(members + np.uint64(pointer), pointer)
    inside = np.flatnonzero((capacity == inline_capacity) & (size > 0) & (size <= inline_capacity))
    mask[candidates[inside]] = _is_ended_text(units[candidates[inside]], size[inside].astype(np.int64), is_text)
    outside = np.flatnonzero((capacity > inline_capacity) & (size <= capacity) & (capacity < 1 << 48))
    text = starts.words[0][candidates[outside]]
    fits = _has_room(view, starts, candidates[outside], (capacity[outside] + np.uint64(1)) * np.uint64(width))
    outside, text = outside[fits], text[fits]
    mask[candidates[outside]] = _ends_in_zero(view, text, size[outside] * np.uint64(width), width)
    return mask


def is_vector(view: View, starts: BlockStarts) -> Mask:
    """True for a std::vector: begin <= end <= end of capacity, which is the end of the block at begin; (n,) bool.

    Never for a vector without capacity: it begins with zeros.
    """
    mask = np.zeros(len(starts.size), bool)
    begin, end = starts.words
    has_members = starts.size >= np.uint64(3 * view.pointer_bytes)
    candidates = np.flatnonzero(has_members & (begin > 0) & (begin <= end) & (begin != starts.address))
    third = starts.address[candidates] + np.uint64(2 * view.pointer_bytes)
    top, _ = view.space.mapped.gather(third, view.pointer_bytes)
    in_order = (end[candidates] <= top) & (begin[candidates] < top)
    candidates, top = candidates[in_order], top[in_order]
    mask[candidates] = _has_room(view, starts, candidates, top - begin[candidates])
    return mask


def _has_room(view: View, starts: BlockStarts, places: NDArray[np.int64], wanted: NDArray[np.uint64]) -> Mask:
    """True where the first pointer of the block leads to memory for exactly `wanted` bytes; (places,) bool."""
    least, most = room_at(view, starts.data, starts.words[0][places], starts.row_below[places])
    fits: Mask = (most > 0) & (least <= wanted) & (wanted <= most)
    return fits


def _begins_with_text(units: NDArray[np.unsignedinteger], count: NDArray[np.int64], is_text: Mask) -> Mask:
    """True where all units before unit `count` are text; (n,) bool. `units` (n, m): the first units of n texts."""
    good: Mask = (is_text[units] | (np.arange(units.shape[1]) >= count[:, None])).all(axis=1)
    return good


def _is_ended_text(units: NDArray[np.unsignedinteger], count: NDArray[np.int64], is_text: Mask) -> Mask:
    """Likewise, and unit `count` is 0."""
    good: Mask = _begins_with_text(units, count, is_text) & (units[np.arange(len(units)), count] == 0)
    return good


def _ends_in_zero(view: View, text: NDArray[np.uint64], size: NDArray[np.uint64], width: int) -> Mask:
    """True where a zero of `width` bytes lies `size` bytes behind the address `text`; (n,) bool."""
    last, is_present = view.space.mapped.gather(text + size, width)
    good: Mask = is_present & (last == 0)
    return good
