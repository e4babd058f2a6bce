"""Blocks that begin with a string or an array of the C++ library, or that are a BSTR, told by what these keep to.

Visual C++'s std::string is {16 bytes that hold the text or a pointer to it, size, capacity}, its std::vector {begin, end,
end of capacity}. Two things must agree: a capacity is exactly that of the block it names (15 or 7 of a text held inside),
and a size leads to the text's end. Blocks of debug builds, which put more before both, are not recognised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.types.block_starts import HEAD_BYTES, Heads, room_at
from heapdump.process.model import View

Mask = NDArray[np.bool_]
_SHORTEST_BSTR = 6
"""Bytes of text: less is as well a small number and another one."""

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
"""UTF-16 that counts as text: Latin, Greek, Cyrillic, and those of China, Japan and Korea."""

_IS_WIDE_TEXT = np.zeros(1 << 16, bool)
for _low, _high in _SCRIPTS:
    _IS_WIDE_TEXT[_low : _high + 1] = True
_IS_TEXT = np.zeros(1 << 8, bool)
_IS_TEXT[0x09:0x0E] = _IS_TEXT[0x20:0x7F] = _IS_TEXT[0x80:] = True  # code pages and UTF-8, too


def is_bstr(view: View, heads: Heads) -> Mask:
    """A length in bytes before a UTF-16 text that ends there in a zero; (n,) bool. On x64 it lies in a header of 8."""
    header, size = view.pointer_bytes, heads.size.astype(np.int64)
    length = heads.raw[:, header - 4 : header].copy().view("<u4")[:, 0].astype(np.int64)
    mask: Mask = (length >= _SHORTEST_BSTR) & (length % 2 == 0) & (header + length + 2 <= size)
    some = np.flatnonzero(mask)
    units = heads.raw[some, header:].copy().view("<u2")
    mask[some] = _begins_with_text(units, length[some] // 2, _IS_WIDE_TEXT)
    mask[mask] = _ends(view, heads.address[mask] + np.uint64(header), length[mask].astype(np.uint64), 2)
    return mask


def is_string(view: View, heads: Heads, width: int) -> Mask:
    """std::string for a `width` of 1, std::wstring of 2; (n,) bool. An empty one that holds its text itself is not told."""
    mask = np.zeros(len(heads.size), bool)
    pointer, held = view.pointer_bytes, HEAD_BYTES // width - 1
    units = heads.raw.view(f"<u{width}")
    is_known = _IS_TEXT if width == 1 else _IS_WIDE_TEXT
    begins = is_known[units[:, 0]] | (heads.words[0] >= 0x10000)
    some = np.flatnonzero((heads.size >= np.uint64(HEAD_BYTES + 2 * pointer)) & begins)
    size, _ = view.space.mapped.gather(heads.address[some] + np.uint64(HEAD_BYTES), pointer)
    capacity, _ = view.space.mapped.gather(heads.address[some] + np.uint64(HEAD_BYTES + pointer), pointer)
    inside = np.flatnonzero((capacity == held) & (size > 0) & (size <= held))
    mask[some[inside]] = _is_text(units[some[inside]], size[inside].astype(np.int64), is_known)
    outside = np.flatnonzero((capacity > held) & (size <= capacity) & (capacity < 1 << 48))
    text = heads.words[0][some[outside]]
    fits = _is_room_for(view, heads, some[outside], (capacity[outside] + np.uint64(1)) * np.uint64(width))
    outside, text = outside[fits], text[fits]
    mask[some[outside]] = _ends(view, text, size[outside] * np.uint64(width), width)
    return mask


def is_vector(view: View, heads: Heads) -> Mask:
    """std::vector: begin ≤ end ≤ end of capacity, from one block's start to its end; (n,) bool. Never an empty one."""
    mask = np.zeros(len(heads.size), bool)
    begin, end = heads.words
    wanted = (heads.size >= np.uint64(3 * view.pointer_bytes)) & (begin > 0) & (begin <= end) & (begin != heads.address)
    some = np.flatnonzero(wanted)
    top, _ = view.space.mapped.gather(heads.address[some] + np.uint64(2 * view.pointer_bytes), view.pointer_bytes)
    good = (end[some] <= top) & (begin[some] < top)
    some, top = some[good], top[good]
    mask[some] = _is_room_for(view, heads, some, top - begin[some])
    return mask


def _is_room_for(view: View, heads: Heads, some: NDArray[np.int64], wanted: NDArray[np.uint64]) -> Mask:
    """Whether the first pointer of some of the blocks leads to memory that was made for so many bytes."""
    least, most = room_at(view, heads.table, heads.words[0][some], heads.row_below[some])
    good: Mask = (most > 0) & (least <= wanted) & (wanted <= most)
    return good


def _begins_with_text(units: NDArray[np.unsignedinteger], count: NDArray[np.int64], is_known: Mask) -> Mask:
    """Every unit in sight before number `count` is text."""
    good: Mask = (is_known[units] | (np.arange(units.shape[1]) >= count[:, None])).all(axis=1)
    return good


def _is_text(units: NDArray[np.unsignedinteger], count: NDArray[np.int64], is_known: Mask) -> Mask:
    """Text up to number `count`, where a zero is."""
    good: Mask = _begins_with_text(units, count, is_known) & (units[np.arange(len(units)), count] == 0)
    return good


def _ends(view: View, text: NDArray[np.uint64], size: NDArray[np.uint64], width: int) -> Mask:
    """A zero of `width` bytes lies `size` bytes behind the start of the text."""
    last, there = view.space.mapped.gather(text + size, width)
    good: Mask = there & (last == 0)
    return good
