"""What the first bytes of many blocks look like, at once: the class of an object, or the shape of plain data."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.groups import dense
from heapdump.analyses.types.block_starts import HEAD_BYTES, Heads, heads_of, rows_below, starts_block
from heapdump.analyses.types.containers import is_bstr, is_string, is_vector
from heapdump.blocks.heap import Heap, Trust
from heapdump.blocks.table import BlockTable
from heapdump.process.model import Process, View
from heapdump.process.symbols.rtti import class_of_vtable
from heapdump.process.symbols.vtables import are_vtables
from heapdump.spans import Span

SHAPES = (
    "not in the dump", "no bytes", "zeros", "one repeated byte", "counted string (BSTR)", "std::string-like", "std::wstring-like",
    "std::vector-like", "text (ASCII)", "text (UTF-16)", "pointer into a module", "pointers to heap blocks",
    "pointer to a heap block", "small number", "other data",
)  # fmt: skip
"""The shapes by number."""

(
    _ABSENT, _EMPTY, _ZEROS, _FILL, _BSTR, _STRING, _WSTRING, _VECTOR, _ASCII, _UTF16, _MODULE, _POINTERS, _POINTER, _SMALL, _OTHER,
) = range(len(SHAPES))  # fmt: skip
LIBRARY_SHAPES = (SHAPES[_BSTR], SHAPES[_STRING], SHAPES[_WSTRING], SHAPES[_VECTOR])
"""Those of Windows' and the C++ library's own types."""

_BATCH = 1 << 17
_MAX_THREADS, _WORTH_THREADS = 8, 4
"""Threads at most; parts of `_BATCH` rows from which on there are several."""


@dataclass(frozen=True)
class Shaped:
    """`numbers`: (n,) int64 dense, of each row. By that number: `labels`, and `trusts` how sure each is."""

    numbers: NDArray[np.int64]
    labels: list[str]
    trusts: list[Trust]


def shapes(
    process: Process, views: dict[int, View], table: BlockTable, rows: NDArray[np.int64], *, by_class: bool
) -> Shaped:
    """The shape of each row by its first requested bytes; with `by_class` an object by its class or its vtable.

    `views`: heap index → view. Reads each block's first bytes once; a vtable is looked at once.
    """
    out = np.full(len(rows), _OTHER, np.uint64)
    labels = {name: (i, Trust.EXACT if i in (_ABSENT, _EMPTY) else Trust.GUESS) for i, name in enumerate(SHAPES)}
    naming = Lock()
    shapers = {view.arch: _Shaper(process, view, table, labels, naming) for view in process.views}
    owners = table.heap[rows]
    jobs = []
    for heap in np.unique(owners).tolist():
        mine = np.flatnonzero(owners == heap)
        jobs += [(shapers[views[heap].arch], mine[first : first + _BATCH]) for first in range(0, len(mine), _BATCH)]

    def shape(job: tuple[_Shaper, NDArray[np.int64]]) -> None:
        """Writes the numbers of some rows of one heap to `out`."""
        shaper, part = job
        out[part] = shaper.of(rows[part], by_class=by_class)
        if len(part) == _BATCH:  # of so many blocks the file's pages need not all stay
            low, high = table.entry[rows[part[[0, -1]]]].tolist()
            process.space.mapped.forget(Span(low, max(low, high)))

    if len(jobs) < _WORTH_THREADS:
        for job in jobs:
            shape(job)
    else:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
            list(pool.map(shape, jobs))
    numbers, values = dense(out)
    names = list(labels)
    return Shaped(numbers, [names[value] for value in values], [labels[names[value]][1] for value in values])


def view_by_heap(process: Process, heaps: tuple[Heap, ...]) -> dict[int, View]:
    """Heap index → the view it belongs to."""
    views = {view.arch: view for view in process.views}
    return {heap.index: views[heap.view] for heap in heaps}


class _Shaper:
    """Shapes of the blocks of one view."""

    def __init__(
        self, process: Process, view: View, table: BlockTable, labels: dict[str, tuple[int, Trust]], naming: Lock
    ) -> None:
        """`labels`: of all shapers, changed while `naming` is held."""
        self._process, self._view, self._table = process, view, table
        self._labels = labels  # label → its number and trust: the shapes, then the classes of all views
        self._known: dict[int, int] = {}
        self._naming = naming

    def of(self, rows: NDArray[np.int64], *, by_class: bool) -> NDArray[np.uint64]:
        """(n,) uint64: the number of each row's shape, or of its class."""
        heads = heads_of(self._view, self._table, rows)
        out = np.full(len(rows), _ZEROS, np.uint64)
        first, second = heads.raw.view(np.uint64).T
        some = np.flatnonzero((first | second) != 0)
        if len(some):
            part = heads.part(some) if len(some) < len(rows) else heads
            shape = self._shape(part)
            if by_class:
                with self._naming:
                    self._name_objects(shape, part)
            out[some] = shape
        out[~heads.there] = _ABSENT
        out[heads.size == 0] = _EMPTY
        return out

    def _shape(self, heads: Heads) -> NDArray[np.uint64]:
        """Of several shapes of blocks that are not all zeros the first of `in_order`."""
        first, second = heads.words
        same = ((heads.raw == heads.raw[:, :1]) | (np.arange(HEAD_BYTES) >= heads.known[:, None])).all(axis=1)
        ascii_text, wide_text = _texts(heads)
        points = starts_block(self._table, first, heads.row_below)
        both = points.copy()
        both[points] = starts_block(self._table, second[points], rows_below(self._table, second[points]))
        in_order = (
            (same & (heads.known > 1), _FILL), (is_bstr(self._view, heads), _BSTR),
            (is_string(self._view, heads, 1), _STRING), (is_string(self._view, heads, 2), _WSTRING),
            (is_vector(self._view, heads), _VECTOR), (ascii_text, _ASCII), (wide_text, _UTF16),
            (self._process.in_modules(first), _MODULE), (both, _POINTERS), (points, _POINTER), (first < 0x10000, _SMALL),
        )  # fmt: skip
        return np.select([mask for mask, _ in in_order], [np.uint64(n) for _, n in in_order], np.uint64(_OTHER))

    def _name_objects(self, out: NDArray[np.uint64], heads: Heads) -> None:
        """Numbers of classes and of vtables in place of `_MODULE`; each vtable is looked at once."""
        some = np.flatnonzero((out == _MODULE) & (heads.size >= np.uint64(self._view.pointer_bytes)))
        keys, inverse = np.unique(heads.words[0][some], return_inverse=True)
        new = np.array([key for key in keys.tolist() if key not in self._known], np.uint64)
        bare = are_vtables(self._process, self._view, new)
        for vtable, is_bare in zip(new.tolist(), bare.tolist(), strict=True):
            self._known[vtable] = self._number(vtable, is_bare=is_bare)
        if len(some):
            out[some] = np.array([self._known[key] for key in keys.tolist()], np.uint64)[inverse]

    def _number(self, vtable: int, *, is_bare: bool) -> int:
        """The number of its class, of itself, or `_MODULE`."""
        found = class_of_vtable(self._process, self._view, vtable)
        if found is not None:
            label, trust = f"{found.kind} {found.name} ({found.module.name})", Trust.DERIVED
        elif is_bare:
            label, trust = f"vtable {self._process.where(vtable)}", Trust.GUESS
        else:
            return _MODULE
        return self._labels.setdefault(label, (len(self._labels), trust))[0]


def _texts(heads: Heads) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Blocks that begin with 4 bytes of ASCII, and with two characters of it as UTF-16; up to the first zero all are."""
    some = np.flatnonzero((heads.known >= 4) & _is_printable(heads.raw[:, 0]))
    raw = heads.raw[some]
    behind = np.arange(HEAD_BYTES) >= heads.known[some, None]
    zero, printable = raw == 0, _is_printable(raw)
    ends = np.logical_or.accumulate(zero, axis=1)  # from the first zero on
    narrow, wide = np.zeros(len(heads.known), bool), np.zeros(len(heads.known), bool)
    narrow[some] = (printable | ends | behind).all(axis=1) & printable[:, :4].all(axis=1)
    even = printable[:, ::2] | np.logical_or.accumulate(zero[:, ::2], axis=1) | behind[:, ::2]
    wide[some] = even.all(axis=1) & (zero[:, 1::2] | behind[:, 1::2]).all(axis=1) & printable[:, 2]
    return narrow, wide


def _is_printable(raw: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """ASCII with its white space."""
    printable: NDArray[np.bool_] = ((raw >= 0x20) & (raw < 0x7F)) | ((raw >= 9) & (raw <= 13))
    return printable
