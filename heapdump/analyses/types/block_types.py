"""The type of many blocks at once, by their first bytes: the class of an object, or a kind of content.

In: rows of the block table. Out: `BlockTypes`, a dense number for each row with its label.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.groups import number_small
from heapdump.analyses.contents import recognise
from heapdump.analyses.types.block_starts import (
    START_BYTES,
    BlockData,
    BlockStarts,
    read_starts,
    rows_below,
    starts_block,
)
from heapdump.analyses.types.containers import is_bstr, is_string, is_vector
from heapdump.analyses.types.content_kind import LIBRARY_KINDS, ContentKind
from heapdump.analyses.types.object_labels import ContentLabels, ObjectLabels
from heapdump.analyses.types.quick_starts import UNDECIDED_NUMBER, QuickStarts
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.kernels import compiled_if_worth
from heapdump.kernels.block_starts import follow_starts
from heapdump.large_arrays import batches, empty
from heapdump.process.model import Arch, Process, View
from heapdump.spans import Span
from heapdump.trust import Trust

_BATCH = 1 << 15
"""Rows that one thread classifies at once."""

_MANY_READS = 1 << 8
"""Each of so many blocks may bring 64 KiB of the file into memory, which need not stay there."""

_MAX_THREADS, _THREADS_FROM_BATCHES = 8, 4
_SMALL_NUMBER = 0x10000
"""Words below are no pointers: Windows maps nothing there."""


NO_VTABLES: Mapping[int, str] = {}
_EXPLAINED = [
    kind.number for kind in (*LIBRARY_KINDS, ContentKind.FILL, ContentKind.MODULE_POINTER, ContentKind.BLOCK_POINTERS)
]
"""Kinds that no signature of a format outweighs."""


@dataclass(frozen=True, slots=True)
class BlockTypes:
    """The types of n blocks.

    Attributes:
        numbers: (n,) int32 number of the type of each row, from 0 without gaps.
        labels: name of each type, by number.
        trusts: trust in each type, by number.
    """

    numbers: NDArray[np.int32]
    labels: list[str]
    trusts: list[Trust]


def types_of(
    process: Process, views: dict[int, View], data: BlockData, rows: NDArray[np.integer], *, by_class: bool,
    vtables: Mapping[int, str] = NO_VTABLES,
) -> BlockTypes:  # fmt: skip
    """The type of each row. With `by_class` an object has its class, or its vtable; else the kind of its content.

    `views`: heap index → view. `vtables`: address → label of the class, where symbols name it.
    Reads 16 bytes of each block; each vtable is examined once.
    """
    out = empty(len(rows), np.int32)  # each row is in a batch
    labels = ContentLabels(vtables)
    table = data.table
    quick = None if compiled_if_worth(follow_starts, len(rows)) is None else QuickStarts(process, table)
    classifiers = {view.arch: _Classifier(process, view, data, labels, quick) for view in process.views}
    jobs: list[tuple[_Classifier, Batch]] = []
    for arch, batch in _batches(table, rows, {heap: view.arch for heap, view in views.items()}):
        jobs.append((classifiers[arch], batch))

    def classify(job: tuple[_Classifier, Batch]) -> None:
        """Writes the numbers of one batch to `out`."""
        classifier, batch = job
        chosen = rows[batch].astype(np.int64)
        out[batch] = classifier.numbers(chosen, by_class=by_class)
        if len(chosen) == _BATCH:  # the pages of the file need not stay in memory
            low, high = table.entry[chosen[[0, -1]]].tolist()
            process.space.mapped.forget(Span(low, max(low, high)))

    if len(jobs) < _THREADS_FROM_BATCHES:
        for job in jobs:
            classify(job)
    else:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
            list(pool.map(classify, jobs))
    if len(rows) >= _MANY_READS:
        process.space.mapped.forget_all()
    values = number_small(out)
    return BlockTypes(out, [labels.texts[value] for value in values], [labels.trusts[value] for value in values])


Batch = NDArray[np.int32] | slice
"""Places of rows that are classified together."""


def _batches(table: BlockTable, rows: NDArray[np.integer], arch_of: Mapping[int, Arch]) -> Iterator[tuple[Arch, Batch]]:
    """(architecture, places) of the batches of all rows, of one view each. `arch_of`: heap index → its view's."""
    architectures = sorted(set(arch_of.values()))
    if len(architectures) <= 1:
        yield from ((architectures[0], slice(low, low + _BATCH)) for low in range(0, len(rows), _BATCH))
        return
    number_of = np.array(
        [architectures.index(arch_of.get(heap, architectures[0])) for heap in range(max(arch_of) + 1)], np.uint8
    )
    views = empty(len(rows), np.uint8)
    for part in batches(len(rows)):
        views[part] = number_of[table.heap[rows[part]]]
    for number, arch in enumerate(architectures):
        of_view = np.flatnonzero(views == number).astype(np.int32)
        yield from ((arch, of_view[low : low + _BATCH]) for low in range(0, len(of_view), _BATCH))


def view_by_heap(process: Process, heaps: tuple[Heap, ...]) -> dict[int, View]:
    """Heap index → the view that the heap belongs to."""
    views = {view.arch: view for view in process.views}
    return {heap.index: views[heap.view] for heap in heaps}


class _Classifier:
    """Classifies blocks of one view; several threads may call it at once."""

    def __init__(
        self, process: Process, view: View, data: BlockData, labels: ContentLabels, quick: QuickStarts | None
    ) -> None:
        """`quick`: decides most blocks by a kernel, None for few blocks."""
        self._process, self._view, self._data, self._labels, self._quick = process, view, data, labels, quick
        self._objects = ObjectLabels(process, view, data, labels)

    def numbers(self, rows: NDArray[np.int64], *, by_class: bool) -> NDArray[np.uint64]:
        """(n,) uint64: the label's number of each row."""
        out = self._numbers(rows, by_class=by_class) if self._quick is None else self._quickly(rows, by_class=by_class)
        counted = np.flatnonzero(out == ContentKind.SMALL_NUMBER.number) if by_class else ()
        if len(counted):
            places, numbers = self._objects.array_numbers(rows[counted])
            out[counted[places]] = numbers
        return out

    def _quickly(self, rows: NDArray[np.int64], *, by_class: bool) -> NDArray[np.uint64]:
        """Likewise without arrays of objects, most rows by the kernel."""
        assert self._quick is not None
        out, objects, pointers = self._quick.kinds(self._view, rows)
        headed = self._data.have_headers(rows)
        out[headed] = UNDECIDED_NUMBER
        plain = ~headed[objects]
        objects, pointers = objects[plain], pointers[plain]
        undecided = np.flatnonzero(out == UNDECIDED_NUMBER)
        if len(undecided):
            out[undecided] = self._numbers(rows[undecided], by_class=by_class)
        if by_class and len(objects):
            out[objects] = self._objects.numbers(pointers, rows[objects])
        return out

    def _numbers(self, rows: NDArray[np.int64], *, by_class: bool) -> NDArray[np.uint64]:
        """Likewise, by arrays."""
        starts = read_starts(self._view, self._data, rows)
        out = np.full(len(rows), ContentKind.ZEROS.number, np.uint64)
        first, second = starts.raw.view(np.uint64).T
        nonzero = np.flatnonzero((first | second) != 0)
        if len(nonzero):
            nonzero_starts = starts.subset(nonzero) if len(nonzero) < len(rows) else starts
            numbers = self._content_numbers(nonzero_starts)
            self._put_formats(numbers, nonzero_starts)
            if by_class:
                self._name_objects(numbers, nonzero_starts, rows[nonzero])
            out[nonzero] = numbers
        out[~starts.is_present] = ContentKind.ABSENT.number
        out[starts.size == 0] = ContentKind.EMPTY.number
        return out

    def _content_numbers(self, starts: BlockStarts) -> NDArray[np.uint64]:
        """Numbers of the content of blocks that do not begin with 16 zeros: of the first kind that fits."""
        first, second = starts.words
        behind = np.arange(START_BYTES) >= starts.known_bytes[:, None]
        is_fill = ((starts.raw == starts.raw[:, :1]) | behind).all(axis=1) & (starts.known_bytes > 1)
        is_ascii, is_utf16 = _texts(starts)
        points = starts_block(self._data, first, starts.row_below)
        both_point = points.copy()
        below = rows_below(self._data.table, second[points])
        both_point[points] = starts_block(self._data, second[points], below)
        in_order = (
            (is_fill, ContentKind.FILL),
            (is_bstr(self._view, starts), ContentKind.BSTR),
            (is_string(self._view, starts, 1), ContentKind.STRING),
            (is_string(self._view, starts, 2), ContentKind.WSTRING),
            (is_vector(self._view, starts), ContentKind.VECTOR),
            (is_ascii, ContentKind.ASCII),
            (is_utf16, ContentKind.UTF16),
            (self._process.in_modules(first), ContentKind.MODULE_POINTER),
            (both_point, ContentKind.BLOCK_POINTERS),
            (points, ContentKind.BLOCK_POINTER),
            (first < _SMALL_NUMBER, ContentKind.SMALL_NUMBER),
        )
        masks, choices = [mask for mask, _ in in_order], [np.uint64(kind.number) for _, kind in in_order]
        return np.select(masks, choices, np.uint64(ContentKind.OTHER.number))

    def _put_formats(self, numbers: NDArray[np.uint64], starts: BlockStarts) -> None:
        """Replaces kinds of content in `numbers` by formats, for blocks that no library type or pointer explains."""
        memory = self._view.space.mapped
        rows = np.flatnonzero(~np.isin(numbers, _EXPLAINED) & starts.is_present)
        found = recognise.recognise(memory, starts.address[rows], starts.size[rows], starts.raw[rows])
        plain = np.flatnonzero((found < 0) & (numbers[rows] == ContentKind.OTHER.number))
        found[plain] = recognise.recognise_plain(memory, starts.address[rows[plain]], starts.size[rows[plain]])
        known = found >= 0
        numbers[rows[known]] = (len(ContentKind) + found[known]).astype(np.uint64)

    def _name_objects(self, numbers: NDArray[np.uint64], starts: BlockStarts, rows: NDArray[np.int64]) -> None:
        """Replaces MODULE_POINTER in `numbers` by the number of the class or vtable that the pointer leads to.

        `rows`: of `starts`.
        """
        is_pointer = numbers == ContentKind.MODULE_POINTER.number
        objects = np.flatnonzero(is_pointer & (starts.size >= np.uint64(self._view.pointer_bytes)))
        if len(objects):
            numbers[objects] = self._objects.numbers(starts.words[0][objects], rows[objects])


def _texts(starts: BlockStarts) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(ASCII, UTF-16) text; (n,) bool each.

    ASCII: 4 printable bytes or more, all printable up to the first zero or the end. UTF-16: the same of the even bytes,
        2
    or more, and the odd bytes are 0.
    """
    candidates = np.flatnonzero((starts.known_bytes >= 4) & _is_printable(starts.raw[:, 0]))
    raw = starts.raw[candidates]
    behind = np.arange(START_BYTES) >= starts.known_bytes[candidates, None]
    zero, printable = raw == 0, _is_printable(raw)
    ended = np.logical_or.accumulate(zero, axis=1)  # from the first zero on
    is_ascii, is_utf16 = np.zeros(len(starts.known_bytes), bool), np.zeros(len(starts.known_bytes), bool)
    is_ascii[candidates] = (printable | ended | behind).all(axis=1) & printable[:, :4].all(axis=1)
    even = printable[:, ::2] | np.logical_or.accumulate(zero[:, ::2], axis=1) | behind[:, ::2]
    is_utf16[candidates] = even.all(axis=1) & (zero[:, 1::2] | behind[:, 1::2]).all(axis=1) & printable[:, 2]
    return is_ascii, is_utf16


def _is_printable(raw: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """ASCII with its white space."""
    printable: NDArray[np.bool_] = ((raw >= 0x20) & (raw < 0x7F)) | ((raw >= 9) & (raw <= 13))
    return printable
