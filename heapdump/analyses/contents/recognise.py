"""The front door: the format of many blocks at once, by the tables of this package.

In: addresses, sizes and first 16 bytes of blocks. Out: numbers of `WORDS`. The first two bytes choose the formats that
are tried; only blocks that a format may fit are read further.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.contents import archives, images, keys, media, programs
from heapdump.analyses.contents.first_bytes import FirstBytes, Format, Mask, Numbers, all_of, read_first_bytes
from heapdump.analyses.contents.numbers import FRAMES, NUMBER_WORDS, frame_words, number_words
from heapdump.analyses.contents.texts import (
    BASE64,
    HEXADECIMAL,
    TEXTS,
    TextFormat,
    coded_words,
    is_coded,
    is_utf8,
    lowered,
    may_be_utf8,
)
from heapdump.memory.mapped import MappedMemory
from heapdump.trust import Trust

FORMATS: tuple[Format, ...] = (
    *images.FORMATS, *archives.FORMATS, *media.FORMATS, *programs.FORMATS, *keys.FORMATS,
)  # fmt: skip
"""Formats with a signature; the first that fits counts."""

UTF8 = "text (UTF-8)"
_WIDE = " (UTF-16)"
_NARROW_WORDS = (*dict.fromkeys(one.word for one in TEXTS), HEXADECIMAL, BASE64)
TEXT_WORDS: tuple[str, ...] = (*_NARROW_WORDS, *(word + _WIDE for word in _NARROW_WORDS), UTF8)
"""Words of texts."""

WORDS: tuple[str, ...] = (
    *dict.fromkeys(one.word for one in FORMATS), *TEXT_WORDS, *NUMBER_WORDS, *FRAMES.values(),
)  # fmt: skip
"""The words of all formats; their places stand for them in arrays."""

VAGUE_WORDS = (*NUMBER_WORDS, *FRAMES.values())
"""Words of data without a signature: guesses that what a block has in common with others says more than."""

_NUMBER = {word: number for number, word in enumerate(WORDS)}
_TRUSTS = {one.word: one.trust for one in FORMATS}
_PROOF_BYTES = 1 << 12
_SAID_BY_TEXT = 16


def trust_of(word: str) -> Trust:
    """`derived` where a header was validated, `guess` for text and for data without a signature."""
    return _TRUSTS.get(word, Trust.GUESS)


def recognise(
    memory: MappedMemory, address: NDArray[np.uint64], size: NDArray[np.uint64], raw: NDArray[np.uint8]
) -> Numbers:
    """The format of each block, a place in `WORDS`; -1 for none; (n,) int64. `raw` (n, 16) uint8: the first bytes.

    Some 3 million blocks of random bytes a second.
    """
    out = np.full(len(size), -1, np.int64)
    for place, table in _BY_START.items():
        pairs = raw[:, place].astype(np.int64) | raw[:, place + 1].astype(np.int64) << 8
        near = np.flatnonzero(table.is_used[pairs] & (out < 0))
        blocks = read_first_bytes(memory, address[near], size[near])
        for format_, places in table.candidates(pairs[near]):
            good = _fits(blocks.take(places), format_, place)
            here = near[places[good]]
            out[here] = np.where(out[here] < 0, _NUMBER[format_.word], out[here])
    _put_texts(memory, address, size, raw, out)
    return out


def recognise_plain(memory: MappedMemory, address: NDArray[np.uint64], size: NDArray[np.uint64]) -> Numbers:
    """Likewise by a sample of the bytes, or by the size, for blocks that nothing else fits."""
    out, sizes = np.full(len(size), -1, np.int64), np.minimum(size, np.uint64(1 << 62)).astype(np.int64)
    for word, mask in (*number_words(memory, address, sizes), *frame_words(sizes)):
        out[mask] = _NUMBER[word]
    return out


def detail_of(word: str, data: bytes, size: int) -> str:
    """What the first bytes of a block say besides the word of its format: `640 × 480, 8 bits, RGBA`; "" for nothing."""
    for one in FORMATS:
        if one.word == word and one.detail is not None and data[one.at :].startswith(one.prefix) and len(data) >= 64:
            return one.detail(data, size)
    return ""


def format_starts() -> NDArray[np.uint8]:
    """(131072,) uint8: not 0 for the first two bytes of a format, and from 65536 on for its bytes 4 and 5."""
    return _ALL_STARTS


class _Starts:
    """Formats by the two bytes at one place. `is_used` (65536,): bytes that a format begins with."""

    def __init__(self, formats: list[Format]) -> None:
        self._formats = formats
        self.is_used = np.zeros(1 << 16, bool)
        self._pairs = [_pairs(one.prefix) for one in formats]
        for pairs in self._pairs:
            self.is_used[pairs] = True

    def candidates(self, pairs: Numbers) -> Iterator[tuple[Format, NDArray[np.int64]]]:
        """(format, places of blocks that begin with its two bytes) of each format that has any."""
        if not len(pairs):
            return
        for one, starts in zip(self._formats, self._pairs, strict=True):
            places = np.flatnonzero(np.isin(pairs, starts))
            if len(places):
                yield one, places


def _pairs(prefix: bytes) -> NDArray[np.int64]:
    """The first two bytes as a number; of a prefix of one byte all numbers that begin with it."""
    if len(prefix) > 1:
        return np.array([prefix[0] | prefix[1] << 8], np.int64)
    return prefix[0] | np.arange(256, dtype=np.int64) << 8


_BY_START = {place: _Starts([one for one in FORMATS if one.at == place]) for place in (0, 4)}
_ALL_STARTS = np.concatenate([_BY_START[place].is_used for place in (0, 4)]).astype(np.uint8)


def _fits(blocks: FirstBytes, format_: Format, place: int) -> Mask:
    """True for blocks of the format."""
    good = all_of(blocks.is_at(place, format_.prefix), blocks.known >= place + len(format_.prefix))
    rows = np.flatnonzero(good)
    good[rows] = format_.test(blocks.take(rows))
    if format_.proof is not None:
        for row in np.flatnonzero(good).tolist():
            many = min(int(blocks.size[row]), _PROOF_BYTES)
            good[row] = np.bool_(format_.proof(_bytes(blocks.memory, int(blocks.address[row]), many)))
    return good


def _bytes(memory: MappedMemory, address: int, size: int) -> bytes:
    """The bytes from an address on; b"" where one of the words is not in the dump."""
    words = address + 8 * np.arange(-(-size // 8), dtype=np.int64)
    found, is_present = memory.gather(words.astype(np.uint64), 8)
    return found.astype("<u8").tobytes()[:size] if is_present.all() else b""


def _put_texts(
    memory: MappedMemory, address: NDArray[np.uint64], size: NDArray[np.uint64], raw: NDArray[np.uint8], out: Numbers
) -> None:
    """Writes the kinds of text to `out`."""
    first, second = raw[:, 0], raw[:, 1]
    is_wide = (second == 0) & (raw[:, 3] == 0) & (raw[:, 2] != 0) & (size >= _SAID_BY_TEXT)
    free = (out < 0) & (first >= 0x20) & (size >= 4)
    for wide, mask in ((False, free & ~is_wide & (second != 0)), (True, free & is_wide)):
        letters = raw[:, ::2] if wide else raw
        rows = np.flatnonzero(mask)
        low = lowered(letters[rows, :2]).astype(np.int64)
        pairs = low[:, 0] | low[:, 1] << 8
        is_near = _TEXT_STARTS[pairs] | is_coded(letters[rows])
        if not wide:
            high = np.flatnonzero((letters[rows] != 0).all(axis=1))  # a shorter text is none of UTF-8
            high = high[may_be_utf8(letters[rows[high]])]
            high = high[(letters[rows[high]] >= 0x80).any(axis=1)]
            known = np.minimum(size[rows[high]], np.uint64(_SAID_BY_TEXT)).astype(np.int64)
            is_near[high] |= is_utf8(letters[rows[high]], known, least=1)
        rows = rows[is_near]
        blocks = read_first_bytes(memory, address[rows], size[rows])
        blocks = _narrowed(blocks) if wide else blocks
        good = _is_text(blocks) if wide else _is_text(blocks) | _is_utf8(blocks)
        rows, blocks = rows[good], blocks.take(np.flatnonzero(good))
        for word, fits in _text_words(blocks, wide):
            here = rows[fits]
            out[here] = np.where(out[here] < 0, _NUMBER[word], out[here])


_TEXT_STARTS = np.zeros(1 << 16, bool)
for _text in TEXTS:
    for _prefix in _text.prefixes:
        _TEXT_STARTS[_pairs(_prefix)] = True


def _narrowed(blocks: FirstBytes) -> FirstBytes:
    """The characters of UTF-16 text as bytes, units above 255 as control characters, which no text has."""
    low, high = blocks.raw[:, ::2], blocks.raw[:, 1::2]
    raw = np.zeros(blocks.raw.shape, np.uint8)
    raw[:, : low.shape[1]] = np.where(high == 0, low, 1)
    return FirstBytes(blocks.memory, blocks.address, blocks.size // 2, raw, blocks.known // 2)


def _is_text(blocks: FirstBytes) -> Mask:
    """True for ASCII up to the first zero or the end, 4 characters or more."""
    raw = blocks.raw
    plain = ((raw >= 0x20) & (raw < 0x7F)) | ((raw >= 9) & (raw <= 13))
    over = np.logical_or.accumulate(raw == 0, axis=1) | (np.arange(raw.shape[1]) >= blocks.known[:, None])
    return all_of((plain | over).all(axis=1), plain[:, :4].all(axis=1))


def _is_utf8(blocks: FirstBytes) -> Mask:
    """True for blocks that begin with UTF-8 text; those with a zero in their first bytes are not."""
    good: Mask = (blocks.raw[:, :_SAID_BY_TEXT] != 0).all(axis=1)
    rows = np.flatnonzero(good)
    good[rows] = is_utf8(blocks.raw[rows], blocks.known[rows])
    return good


def _text_words(blocks: FirstBytes, wide: bool) -> Iterator[tuple[str, Mask]]:
    """(word, mask) of the kinds of text, most telling first."""
    suffix = _WIDE if wide else ""
    low = FirstBytes(blocks.memory, blocks.address, blocks.size, lowered(blocks.raw), blocks.known)
    for one in TEXTS:
        yield one.word + suffix, _begins(low, one) & one.test(low)
    coded = [(word, mask) for word, mask in coded_words(blocks)]
    yield from ((word + suffix, mask) for word, mask in coded if not wide or mask.any())
    if not wide:
        yield UTF8, _is_utf8(blocks)


def _begins(low: FirstBytes, text: TextFormat) -> Mask:
    """True where the text begins with one of the prefixes."""
    good = np.zeros(len(low), bool)
    for prefix in text.prefixes:
        good |= low.is_at(0, prefix)
    return good
