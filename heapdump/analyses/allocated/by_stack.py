"""Busy blocks in groups by the stack that allocated them, or by a part of it.

In: rows of the block table, and their stacks. Out: a `Grouping`; stacks with the same key are one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.allocated.groups import dense, group
from heapdump.analyses.allocated.leaks import Grouping, LeakContext, LeakGroup, LeakQuestion, Rows
from heapdump.analyses.allocated.stack_keys import distinct, passes_on, stack_key, verifiers_own

if TYPE_CHECKING:
    from heapdump.process.symbols.namer import Frame


class StackGrouper:
    """Groups by stack, or by a part of it; stacks with the same key are one group."""

    def __init__(self, context: LeakContext, question: LeakQuestion, rows: Rows, by: GroupKey) -> None:
        """`rows` (n,) int64: the blocks, ascending."""
        self._context, self._question, self._rows, self._by = context, question, rows, by
        self._passes_on = passes_on(question.skip)

    def grouping(self) -> Grouping:
        """The groups of the question, without stacks that `focus` and `ignore` leave out."""
        context, rows = self._context, self._rows
        numbers, values = dense(context.stacks.numbers(rows, checked=False))
        stacks = self._addresses(rows, numbers, values)
        namer = context.namer()
        frames = [tuple(frame for address in addresses for frame in namer.frames(address)) for addresses in stacks]
        names = [self._context.stacks.name_of(value) for value in values]
        keys = [
            name or self._key(addresses, named) for name, addresses, named in zip(names, stacks, frames, strict=True)
        ]
        number_of_key = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        group_of_stack = np.array([number_of_key[key] for key in keys], np.int64)
        first_frames = {number_of_key[key]: named for key, named in zip(reversed(keys), reversed(frames), strict=True)}
        if values:
            is_wanted = np.array([self._is_wanted(named) for named in frames], bool)[numbers]
            rows, numbers = rows[is_wanted], group_of_stack[numbers[is_wanted]]
        groups = group(context.table, rows, numbers, range(len(number_of_key)))
        labels = self._labels(list(number_of_key), [first_frames[i] for i in range(len(number_of_key))])
        out = [LeakGroup(labels[one.value], one, self._common(first_frames[one.value])) for one in groups]
        return Grouping(out, rows, numbers)

    def _addresses(self, rows: Rows, numbers: NDArray[np.int64], values: list[int]) -> list[tuple[int, ...]]:
        """Return addresses of each stack, innermost first; of a stack of several heaps as the last heap has it."""
        owner = np.zeros(len(values), np.int64)
        owner[numbers] = self._context.table.heap[rows]
        stacks, heaps = self._context.stacks, self._context.heaps
        return [stacks.frames(heaps[heap], value) for heap, value in zip(owner.tolist(), values, strict=True)]

    def _key(self, addresses: tuple[int, ...], named: tuple[Frame, ...]) -> object:
        if self._by is GroupKey.STACK or not addresses:
            return addresses
        caller = self._caller(named)
        if caller is None:
            return "only allocator frames"
        return (caller.module or str(caller)) if self._by is GroupKey.MODULE else str(caller)

    def _labels(self, keys: list[object], stacks: list[tuple[Frame, ...]]) -> list[str]:
        """The key of each group in words, each once."""
        where = self._context.process.where
        words = [self._words(key, frames) for key, frames in zip(keys, stacks, strict=True)]
        return distinct(words, [[where(frame.address) for frame in frames] for frames in stacks])

    def _words(self, key: object, frames: tuple[Frame, ...]) -> str:
        if not frames:
            return key if isinstance(key, str) else "no stack recorded"
        return stack_key(frames, self._passes_on) if self._by is GroupKey.STACK else str(key)

    def _common(self, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
        """The frames that the stacks of a group share: all of them, or the caller."""
        if self._by is GroupKey.STACK:
            return frames
        caller = self._caller(frames)
        return (caller,) if self._by is GroupKey.CALLER and caller is not None else ()

    def _caller(self, frames: Sequence[Frame]) -> Frame | None:
        """The first frame outside the modules that pass allocations on, or Verifier's that allocated for itself."""
        own = (frame for frame in frames if not self._passes_on(frame))
        return next(own, next(iter(verifiers_own(frames, self._passes_on)), None))

    def _is_wanted(self, frames: tuple[Frame, ...]) -> bool:
        focus, ignore = self._question.focus, self._question.ignore
        texts = [str(frame) for frame in frames]
        if focus is not None and not any(focus.search(text) for text in texts):
            return False
        return ignore is None or not any(ignore.search(text) for text in texts)
