"""The type of many blocks at once, by their first bytes: the class of an object, or a kind of content.

In: rows of the block table. Out: `BlockTypes`, a dense number for each row with its label.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.groups import dense, number_small
from heapdump.analyses.contents import recognise
from heapdump.analyses.types.block_starts import START_BYTES, BlockStarts, read_starts, rows_below, starts_block
from heapdump.analyses.types.containers import is_bstr, is_string, is_vector
from heapdump.analyses.types.content_kind import LIBRARY_KINDS, ContentKind
from heapdump.analyses.types.quick_starts import UNDECIDED_NUMBER, QuickStarts
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.kernels import compiled_if_worth
from heapdump.kernels.block_starts import follow_starts
from heapdump.large_arrays import count_each, empty, full, parts
from heapdump.process.model import Process, View
from heapdump.process.symbols.rtti import ClassName, class_of_virtual_base, class_of_vtable, offset_of_virtual_base
from heapdump.process.symbols.vtables import are_vtables
from heapdump.spans import Span
from heapdump.trust import Trust

_BATCH = 1 << 15
"""Rows that one thread classifies at once."""

_SOME = 1 << 8
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
    process: Process, views: dict[int, View], table: BlockTable, rows: NDArray[np.integer], *, by_class: bool,
    vtables: Mapping[int, str] = NO_VTABLES,
) -> BlockTypes:  # fmt: skip
    """The type of each row. With `by_class` an object has its class, or its vtable; else the kind of its content.

    `views`: heap index → view. `vtables`: address → label of the class, where symbols name it.
    Reads 16 bytes of each block; each vtable is examined once.
    """
    out = full(len(rows), ContentKind.OTHER.number, np.int32)
    labels = _ContentLabels(vtables)
    quick = None if compiled_if_worth(follow_starts, len(rows)) is None else QuickStarts(process, table)
    classifiers = {view.arch: _Classifier(process, view, table, labels, quick) for view in process.views}
    jobs: list[tuple[_Classifier, Batch]] = []
    for heap, batch in _batches(table, rows):
        jobs.append((classifiers[views[heap].arch], batch))

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
    if len(rows) >= _SOME:
        process.space.mapped.forget_all()
    values = number_small(out)
    return BlockTypes(out, [labels.texts[value] for value in values], [labels.trusts[value] for value in values])


Batch = NDArray[np.int32] | slice
"""Places of rows that are classified together."""


def _batches(table: BlockTable, rows: NDArray[np.integer]) -> Iterator[tuple[int, Batch]]:
    """(heap, places) of the batches of all rows, of one heap each; of a single heap without a list."""
    owners = empty(len(rows), np.uint16)
    for part in parts(len(rows)):
        owners[part] = table.heap[rows[part]]
    heaps = np.flatnonzero(count_each(owners, int(table.heap.max()) + 1 if len(table) else 1)).tolist()
    for heap in heaps:
        if len(heaps) == 1:
            yield from ((heap, slice(low, low + _BATCH)) for low in range(0, len(owners), _BATCH))
            continue
        of_heap = np.flatnonzero(owners == heap).astype(np.int32)
        yield from ((heap, of_heap[low : low + _BATCH]) for low in range(0, len(of_heap), _BATCH))


def view_by_heap(process: Process, heaps: tuple[Heap, ...]) -> dict[int, View]:
    """Heap index → the view that the heap belongs to."""
    views = {view.arch: view for view in process.views}
    return {heap.index: views[heap.view] for heap in heaps}


class _ContentLabels:
    """Labels by number: kinds of content, formats, then classes and vtables as they are met, of all views together."""

    def __init__(self, vtables: Mapping[int, str]) -> None:
        self.vtables = vtables
        self.texts: list[str] = [*ContentKind, *recognise.WORDS]
        self.trusts = [*(kind.trust for kind in ContentKind), *map(recognise.trust_of, recognise.WORDS)]
        self.naming = Lock()
        """Held while labels are added."""
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def number(self, text: str, trust: Trust) -> int:
        """The number of a label, a new one for a new label. To be called while `naming` is held."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
            self.trusts.append(trust)
        return self._numbers[text]


class _Classifier:
    """Classifies blocks of one view; several threads may call it at once."""

    def __init__(
        self, process: Process, view: View, table: BlockTable, labels: _ContentLabels, quick: QuickStarts | None
    ) -> None:
        """`quick`: decides most blocks by a kernel, None for few blocks."""
        self._process, self._view, self._table, self._labels, self._quick = process, view, table, labels, quick
        self._number_of_vtable: dict[int, int] = {}
        self._offset_of_virtual_base: dict[int, int] = {}

    def numbers(self, rows: NDArray[np.int64], *, by_class: bool) -> NDArray[np.uint64]:
        """(n,) uint64: the label's number of each row."""
        if self._quick is None:
            return self._numbers(rows, by_class=by_class)
        out, pointers = self._quick.kinds(self._view, rows)
        undecided = np.flatnonzero(out == UNDECIDED_NUMBER)
        if len(undecided):
            out[undecided] = self._numbers(rows[undecided], by_class=by_class)
        objects = np.flatnonzero(pointers) if by_class else ()
        if len(objects):
            with self._labels.naming:
                out[objects] = self._vtable_numbers(pointers[objects], rows[objects])
        return out

    def _numbers(self, rows: NDArray[np.int64], *, by_class: bool) -> NDArray[np.uint64]:
        """Likewise, by arrays."""
        starts = read_starts(self._view, self._table, rows)
        out = np.full(len(rows), ContentKind.ZEROS.number, np.uint64)
        first, second = starts.raw.view(np.uint64).T
        nonzero = np.flatnonzero((first | second) != 0)
        if len(nonzero):
            nonzero_starts = starts.subset(nonzero) if len(nonzero) < len(rows) else starts
            numbers = self._content_numbers(nonzero_starts)
            self._put_formats(numbers, nonzero_starts)
            if by_class:
                with self._labels.naming:
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
        points = starts_block(self._table, first, starts.row_below)
        both_point = points.copy()
        both_point[points] = starts_block(self._table, second[points], rows_below(self._table, second[points]))
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
            numbers[objects] = self._vtable_numbers(starts.words[0][objects], rows[objects])

    def _vtable_numbers(self, pointers: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The number of the class or of the vtable that the pointer at the start of each row leads to.

        MODULE_POINTER's where it leads to neither.
        """
        places, values = dense(pointers)
        vtables = np.array(values, np.uint64)
        new = np.array([vtable for vtable in vtables.tolist() if vtable not in self._number_of_vtable], np.uint64)
        bare = are_vtables(self._process, self._view, new)
        for vtable, is_bare in zip(new.tolist(), bare.tolist(), strict=True):
            number = self._number_of_vtable[vtable] = self._number(vtable, is_bare=is_bare)
            is_unknown = number == ContentKind.MODULE_POINTER.number
            self._offset_of_virtual_base[vtable] = (
                offset_of_virtual_base(self._process, self._view, vtable) if is_unknown else 0
            )
        found: NDArray[np.uint64] = np.array([self._number_of_vtable[vtable] for vtable in values], np.uint64)[places]
        for place, table in enumerate(values):
            offset = self._offset_of_virtual_base[table]
            if offset:
                of_table = np.flatnonzero(places == place)
                found[of_table] = self._virtual_base_numbers(rows[of_table], offset)
        return found

    def _virtual_base_numbers(self, rows: NDArray[np.int64], offset: int) -> NDArray[np.uint64]:
        """The number of the class of each row, by the vtable of its first virtual base, or MODULE_POINTER's."""
        width = self._view.pointer_bytes
        whole = np.where(
            self._table.sizes(rows) >= np.uint64(offset + width), self._table.addresses(rows), np.uint64(0)
        )
        vtables, _ = self._view.space.mapped.gather(whole + np.uint64(offset), width)
        places, values = dense(vtables)
        numbers = [self._class_number(class_of_virtual_base(self._process, self._view, one, offset)) for one in values]
        found: NDArray[np.uint64] = np.array(numbers, np.uint64)[places]
        return found

    def _class_number(self, found: ClassName | None) -> int:
        """The number of a class; MODULE_POINTER's without one."""
        if found is None:
            return ContentKind.MODULE_POINTER.number
        return self._labels.number(f"{found.kind} {found.name} ({found.module.name})", Trust.DERIVED)

    def _number(self, vtable: int, *, is_bare: bool) -> int:
        """The number of a vtable's class; without type information (`is_bare`) that of the vtable; or of neither."""
        found = class_of_vtable(self._process, self._view, vtable)
        if found is not None:
            return self._class_number(found)
        if vtable in self._labels.vtables:
            return self._labels.number(self._labels.vtables[vtable], Trust.DERIVED)
        if is_bare:
            return self._labels.number(f"vtable {self._process.where(vtable)}", Trust.GUESS)
        return ContentKind.MODULE_POINTER.number


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
