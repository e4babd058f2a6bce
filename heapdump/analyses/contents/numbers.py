"""Data without a signature: arrays of floating-point numbers, compressed or encrypted data, frames of a camera.

All of them are guesses: they tell what a sample of the bytes, or the size alone, looks like.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.contents.first_bytes import Mask, Numbers, read_words
from heapdump.memory.mapped import MappedMemory

FLOATS, DOUBLES, RANDOM = "array of float", "array of double", "compressed or encrypted data (by its entropy)"
NUMBER_WORDS = (FLOATS, DOUBLES, RANDOM)

_SAMPLE = 128
_LONG_SAMPLE = 512
_FROM, _RANDOM_FROM = 256, 4096
"""Bytes of a block that is sampled at all, and for its entropy."""

_BATCH, _ROWS = 1 << 12, 1 << 8
_FEWEST_VALUES = 8
_DISTINCT, _OF_COLUMN, _STEP = (198, 243), 44, (74, 97)
"""Of 512 random bytes: 221 different values (deviation 5), 57 of 64 at each place of a word (deviation 2.4), 85 from
one byte to the next (deviation 2.7)."""

_SIDES = (
    (640, 480), (720, 576), (800, 600), (1024, 768), (1280, 720), (1280, 960), (1280, 1024), (1366, 768), (1440, 900),
    (1600, 1200), (1680, 1050), (1920, 1080), (1920, 1200), (2048, 1536), (2448, 2048), (2560, 1440), (2560, 1600),
    (2592, 1944), (2592, 2048), (3440, 1440), (3840, 2160), (4096, 2160), (4096, 3000), (5120, 5120),
)  # fmt: skip
_PIXEL_BYTES = (1, 2, 3, 4)
_EVEN = 1 << 16
"""Sizes that are multiples of this are those of any buffer."""


def _frames() -> dict[int, str]:
    """Bytes → `1920 × 1080 × 3`; sizes that two resolutions share, and multiples of 64 KiB, are left out."""
    found: dict[int, list[str]] = {}
    for width, height in _SIDES:
        for depth in _PIXEL_BYTES:
            found.setdefault(width * height * depth, []).append(f"{width} × {height} × {depth}")
        found.setdefault(width * height * 3 // 2, []).append(f"{width} × {height} × 1.5")
    return {size: words[0] for size, words in found.items() if len(words) == 1 and size % _EVEN}


FRAMES = {size: f"frame of {words} bytes (by its size)" for size, words in _frames().items()}
"""Bytes of a frame → its word."""


def frame_words(size: Numbers) -> list[tuple[str, Mask]]:
    """(word, mask) of blocks that have the size of a frame."""
    near = np.flatnonzero(np.isin(size, list(FRAMES)))
    return [(FRAMES[value], size == value) for value in np.unique(size[near]).tolist()]


def number_words(memory: MappedMemory, address: NDArray[np.uint64], size: Numbers) -> list[tuple[str, Mask]]:
    """(word, mask) of arrays of numbers and of random bytes, by a sample in the middle of each block."""
    masks = {word: np.zeros(len(size), bool) for word in NUMBER_WORDS}
    sampled = np.flatnonzero(size >= _FROM)
    for low in range(0, len(sampled), _BATCH):
        rows = sampled[low : low + _BATCH]
        words, is_whole = _sample(memory, address[rows], size[rows], _SAMPLE)
        masks[DOUBLES][rows] = is_whole & _are_doubles(words)
        masks[FLOATS][rows] = is_whole & ~masks[DOUBLES][rows] & _are_floats(words)
        long = np.flatnonzero((size[rows] >= _RANDOM_FROM) & ~masks[DOUBLES][rows] & ~masks[FLOATS][rows])
        words, is_whole = _sample(memory, address[rows[long]], size[rows[long]], _LONG_SAMPLE)
        masks[RANDOM][rows[long]] = is_whole & _are_random(words)
    return list(masks.items())


def _sample(
    memory: MappedMemory, address: NDArray[np.uint64], size: Numbers, many: int
) -> tuple[NDArray[np.uint64], Mask]:
    """(words of 8 bytes in the middle of each block, (n, many / 8); whether the dump has all of them)."""
    middle = address + ((size - many) // 2 & ~7).astype(np.uint64)
    words, is_there = read_words(memory, middle, many // 8)
    return words, np.asarray(is_there.all(axis=1))


def _are_doubles(words: NDArray[np.uint64]) -> Mask:
    """True where nearly all are numbers from 2^-30 to 2^30 in size and the others 0; several different ones."""
    exponent = (words >> np.uint64(52)) & np.uint64(0x7FF)
    return _are_numbers(words, (exponent >= 1023 - 30) & (exponent <= 1023 + 30))


def _are_floats(words: NDArray[np.uint64]) -> Mask:
    """Likewise of 4 bytes, from 2^-20 to 2^20; pixels, whose four bytes are close to each other, are none."""
    halves = np.ascontiguousarray(words).astype("<u8").view("<u4")
    exponent = (halves >> 23) & 0xFF
    good = _are_numbers(halves, (exponent >= 127 - 20) & (exponent <= 127 + 20))
    rows = np.flatnonzero(good)
    second, last = (halves[rows] >> 8) & 0xFF, halves[rows] >> 24
    apart = np.abs(second.astype(np.int64) - (last & 0x7F).astype(np.int64)) > 24
    good[rows] = apart.mean(axis=1) >= 0.5
    return good


def _are_numbers(words: NDArray[np.unsignedinteger], is_number: Mask) -> Mask:
    """True where each word is a number or 0, three quarters are no zeros, and several differ."""
    good: Mask = (is_number | (words == 0)).all(axis=1)
    rows = np.flatnonzero(good)
    ordered = np.sort(words[rows], axis=1)
    different = (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) + 1
    good[rows] = ((ordered == 0).mean(axis=1) <= 0.25) & (different >= _FEWEST_VALUES)
    return good


def _are_random(words: NDArray[np.uint64]) -> Mask:
    """True where bytes are as different as random ones: all of them, those at each place of a word, and neighbours."""
    raw = np.ascontiguousarray(words).astype("<u8").view(np.uint8)
    step = np.abs(np.diff(raw.astype(np.int16), axis=1)).mean(axis=1)
    good: Mask = (step >= _STEP[0]) & (step <= _STEP[1])
    rows = np.flatnonzero(good)
    for low in range(0, len(rows), _ROWS):
        part = rows[low : low + _ROWS]
        good[part] = _have_many_values(raw[part])
    return good


def _have_many_values(raw: NDArray[np.uint8]) -> Mask:
    """True where there are as many different bytes as in random data, in all and at each place of a word."""
    places = 8 * np.arange(len(raw), dtype=np.int32)[:, None] + np.arange(raw.shape[1], dtype=np.int32) % 8
    is_used = np.zeros((len(raw), 8, 256), bool)
    is_used.reshape(-1)[256 * places + raw] = True
    of_place = np.count_nonzero(is_used, axis=2)
    all_ = np.count_nonzero(is_used.any(axis=1), axis=1)
    good: Mask = (all_ >= _DISTINCT[0]) & (all_ <= _DISTINCT[1]) & (of_place >= _OF_COLUMN).all(axis=1)
    return good
