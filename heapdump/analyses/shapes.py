"""What the first bytes of many blocks look like, at once: the class of an object, or the shape of plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.groups import dense
from heapdump.blocks.records import Heap
from heapdump.blocks.table import BlockTable
from heapdump.process.model import Process, View
from heapdump.process.rtti import class_of_vtable

SHAPES = (
    "not in the dump", "no bytes", "zeros", "one repeated byte", "text (ASCII)", "text (UTF-16)", "counted string (BSTR)",
    "pointer into a module", "pointers to heap blocks", "pointer to a heap block", "small number", "other data",
)  # fmt: skip
"""The shapes by number."""

_ABSENT, _EMPTY, _ZEROS, _FILL, _ASCII, _UTF16, _BSTR, _MODULE, _POINTERS, _POINTER, _SMALL, _OTHER = range(len(SHAPES))
_BATCH = 1 << 18
_FIRST_CLASS = 1 << 32
"""Numbers from here on are classes that were recognised: so many times the heap's index + 1, and one for each vtable."""


@dataclass(frozen=True)
class Shaped:
    """`numbers`: (n,) int64 dense, of each row; `labels` by that number; `vtables` how many classes were named."""

    numbers: NDArray[np.int64]
    labels: list[str]
    classes: int


def shapes(process: Process, views: dict[int, View], table: BlockTable, rows: NDArray[np.int64], *, by_class: bool) -> Shaped:
    """The shape of each row's first 16 requested bytes; with `by_class` an object is named by its class.

    `views`: heap index → view. Reads each block's first bytes once; a vtable is looked at once.
    """
    out = np.full(len(rows), _OTHER, np.uint64)
    names: dict[int, str] = {}
    owners = table.heap[rows]
    for heap in np.unique(owners).tolist():
        mine = np.flatnonzero(owners == heap)
        shaper = _Shaper(process, views[heap], table, _FIRST_CLASS * (heap + 1))
        for first in range(0, len(mine), _BATCH):
            part = mine[first : first + _BATCH]
            out[part] = shaper.of(rows[part], by_class=by_class)
        names |= shaper.names
    numbers, values = dense(out)
    return Shaped(numbers, [names.get(value, SHAPES[value] if value < len(SHAPES) else "") for value in values], len(names))


def view_by_heap(process: Process, heaps: tuple[Heap, ...]) -> dict[int, View]:
    """Heap index → the view it belongs to."""
    views = {view.arch: view for view in process.views}
    return {heap.index: views[heap.view] for heap in heaps}


class _Shaper:
    """Shapes of the blocks of one view."""

    def __init__(self, process: Process, view: View, table: BlockTable, first: int) -> None:
        self._first = first  # number of the first class that this one names
        self._process, self._view, self._table = process, view, table
        modules = sorted(process.modules, key=lambda module: module.span.start)
        self._starts = np.array([m.span.start for m in modules], np.uint64)
        self._ends = np.array([m.span.end for m in modules], np.uint64)
        self.names: dict[int, str] = {}
        self._classes: dict[int, int] = {}

    def of(self, rows: NDArray[np.int64], *, by_class: bool) -> NDArray[np.uint64]:
        """(n,) uint64: the number of each row's shape in `SHAPES`, or of its class (`names`)."""
        address, size = self._table.address[rows], self._table.size[rows]
        first, there = self._view.space.gather(address, 8)
        second, _ = self._view.space.gather(address + np.uint64(8), 8)
        known = np.minimum(size, np.uint64(16))
        first, second = _cut(first, known, 0), _cut(second, known, 8)
        out = self._shape(first, second, known)
        out[~there] = _ABSENT
        out[size == 0] = _EMPTY
        if by_class:
            self._name_classes(out, first, size)
        return out

    def _shape(self, first: NDArray[np.uint64], second: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.uint64]:
        raw = np.stack([first, second], axis=1).view(np.uint8).reshape(-1, 16)
        inside = np.arange(16) < known.astype(np.int64)[:, None]
        zero = raw == 0
        printable = ((raw >= 0x20) & (raw < 0x7F)) | ((raw >= 9) & (raw <= 13))
        ends = np.logical_or.accumulate(zero, axis=1)  # from the first zero on
        ascii_text = (printable | ends | ~inside).all(axis=1) & printable[:, :4].all(axis=1) & (known >= 4)
        wide = (printable[:, ::2] | np.logical_or.accumulate(zero[:, ::2], axis=1) | ~inside[:, ::2]).all(axis=1)
        wide &= (zero[:, 1::2] | ~inside[:, 1::2]).all(axis=1) & printable[:, 0:4:2].all(axis=1) & (known >= 4)
        wide_behind = (zero[:, 5::2] | ~inside[:, 5::2]).all(axis=1) & printable[:, 4:8:2].all(axis=1) & (known >= 12)
        counted = wide_behind & (raw[:, :4].view("<u4")[:, 0] % 2 == 0) & (raw[:, :4].view("<u4")[:, 0] < 1 << 20)
        counted &= raw[:, :4].view("<u4")[:, 0] > 0
        same = ((raw == raw[:, :1]) | ~inside).all(axis=1)
        words = self._words(first, second)
        in_module = self._in_module(words[0])
        points = [self._points(word) for word in words]
        shapes_in_order = (
            (same & (first == 0), _ZEROS), (same & (known > 1), _FILL), (ascii_text, _ASCII), (wide, _UTF16), (counted, _BSTR),
            (in_module, _MODULE), (points[0] & points[1], _POINTERS), (points[0], _POINTER), (words[0] < 0x10000, _SMALL),
        )  # fmt: skip
        return np.select([mask for mask, _ in shapes_in_order], [np.uint64(n) for _, n in shapes_in_order], np.uint64(_OTHER))

    def _words(self, first: NDArray[np.uint64], second: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The first two pointers."""
        if self._view.pointer_bytes == 8:
            return first, second
        return first & np.uint64(0xFFFFFFFF), first >> np.uint64(32)

    def _in_module(self, words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if not len(self._starts):
            return np.zeros(len(words), bool)
        i = np.maximum(np.searchsorted(self._starts, words, side="right"), 1) - 1
        inside: NDArray[np.bool_] = (words >= self._starts[i]) & (words < self._ends[i])
        return inside

    def _points(self, words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Words that are the address of a block of the program."""
        i = np.maximum(np.searchsorted(self._table.entry, words, side="right"), 1) - 1
        hit: NDArray[np.bool_] = self._table.address[i] == words
        return hit

    def _name_classes(self, out: NDArray[np.uint64], first: NDArray[np.uint64], size: NDArray[np.uint64]) -> None:
        wide = self._view.pointer_bytes
        candidates = np.flatnonzero((out == _MODULE) & (size >= np.uint64(wide)))
        words = self._words(first[candidates], first[candidates])[0]
        for vtable in np.unique(words).tolist():
            if vtable not in self._classes:
                found = class_of_vtable(self._process, self._view, vtable)
                number = self._first + len(self._classes)
                self._classes[vtable] = number if found else _MODULE
                if found:
                    self.names[number] = f"{found.kind} {found.name} ({found.module.name})"
        if len(candidates):
            keys, inverse = np.unique(words, return_inverse=True)
            out[candidates] = np.array([self._classes[int(key)] for key in keys], np.uint64)[inverse]


def _cut(words: NDArray[np.uint64], known: NDArray[np.uint64], start: int) -> NDArray[np.uint64]:
    """The words without the bytes from `known` on; the first byte of a word is number `start`."""
    bits = np.clip((known.astype(np.int64) - start) * 8, 0, 64)
    mask = np.where(bits >= 64, np.uint64(0xFFFFFFFFFFFFFFFF), (np.uint64(1) << np.minimum(bits, 63).astype(np.uint64)) - np.uint64(1))
    return words & mask
