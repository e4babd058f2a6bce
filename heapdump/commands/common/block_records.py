"""Blocks as records that write themselves thousands at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from heapdump.commands.common.blocks import BlockRecorder
from heapdump.render.view import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from heapdump.snapshot import Snapshot

_ARE_HEX = (True, True, False, False, False)
"""For the places of an example: address, entry, size, entry_size, number of the stack."""


class BlockRecords:
    """The JSON records of table rows."""

    def __init__(self, snapshot: Snapshot, rows: NDArray[np.int64]) -> None:
        """`rows`: of the snapshot's block table, in the order of the records."""
        self._table, self._rows = snapshot.walk.table, rows
        self._heaps = len(snapshot.heaps)
        self._recorder = BlockRecorder(snapshot)

    def __iter__(self) -> Iterator[Record]:
        """The records, one after the other."""
        return self._recorder.of(self._rows)

    def texts(self, line: Callable[[Record], str]) -> Iterator[str]:
        """The lines of all records.

        Blocks of one segment with equal tags have records that differ in numbers alone: one of them is written by
        `line`, the others by filling their numbers in. Blocks of the CRT's debug heap are written one by one.
        """
        known: dict[int, tuple[bytes, ...]] = {}
        is_first = True
        for rows, stacks, crt in self._recorder.batches(self._rows):
            if is_first:
                yield line(next(self._recorder.records(rows[:1], stacks[:1], crt)))
                rows, stacks, is_first = rows[1:], stacks[1:], False
            if crt or self._wraps(rows):
                yield from map(line, self._recorder.records(rows, stacks, crt))
            elif len(rows):
                yield self._filled(rows, stacks, line, known)

    def _filled(
        self,
        rows: NDArray[np.int64],
        stacks: NDArray[np.uint64],
        line: Callable[[Record], str],
        known: dict[int, tuple[bytes, ...]],
    ) -> str:
        """The lines of the records of some rows; `known`: templates by form, added to."""
        import numpy as np

        from heapdump.render.templates import Number, filled

        table = self._table
        forms, first, which = np.unique(self._forms(rows, stacks), return_index=True, return_inverse=True)
        for form, i in zip(forms.tolist(), first.tolist(), strict=True):
            if form not in known:
                known[form] = self._template(int(rows[i]), line, has_stack=bool(stacks[i]))
        return filled(
            [known[form] for form in forms.tolist()], which,
            [
                Number(table.addresses(rows), is_hex=True), Number(table.entry[rows], is_hex=True),
                Number(table.sizes(rows)), Number(table.entry_sizes(rows)), Number(stacks, is_optional=True),
            ],
        )  # fmt: skip

    def _wraps(self, rows: NDArray[np.int64]) -> bool:
        """True where a size is negative or an address beyond 64 bits; columns of numbers have no such values."""
        table = self._table
        return bool(
            (table.entry_sizes(rows) < table.unused[rows]).any() or (table.addresses(rows) < table.entry[rows]).any()
        )

    def _forms(self, rows: NDArray[np.int64], stacks: NDArray[np.uint64]) -> NDArray[np.int64]:
        """A number for each row, equal for rows whose records differ in numbers alone."""
        import numpy as np

        table = self._table
        place = (self._recorder.owners.segment_numbers(table.entry[rows]) + 1) * self._heaps + table.heap[rows]
        forms: NDArray[np.int64] = place << 17 | table.tags[rows].astype(np.int64) << 1 | (stacks > 0)
        return forms

    def _template(self, row: int, line: Callable[[Record], str], *, has_stack: bool) -> tuple[bytes, ...]:
        """The text of a row's record around its numbers."""
        from heapdump.render.templates import pieces, placeholders

        address, entry, size, entry_size, stack = placeholders(len(_ARE_HEX))
        block = self._table.block(row)
        record = self._recorder.record(block, stack if has_stack else 0)
        numbers = {"address": hex(address), "entry": hex(entry), "size": size, "entry_size": entry_size}
        return pieces(line(record | numbers), _ARE_HEX)
