"""Busy blocks by who allocated them, or by what they are: a short list of suspects out of millions of blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.groups import Group, dense, group
from heapdump.analyses.allocated.stacks import Stacks
from heapdump.analyses.allocated.suppressions import Rule, Suppressions
from heapdump.analyses.types.block_types import shapes, view_by_heap
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.heap import Heap, Trust
from heapdump.blocks.table import BlockTable
from heapdump.process.model import Process

if TYPE_CHECKING:  # imported where stacks are named
    from heapdump.process.symbols.namer import Frame, Namer

By = Literal["stack", "caller", "module", "size", "heap", "type", "content", "source"]
_KEY_FRAMES = 3
BY_STACK = ("stack", "caller", "module")
"""Keys that need recorded stacks."""

ALLOCATORS = re.compile(
    r"(?:ntdll|kernelbase|kernel32|ucrtbased?|msvcrt|msvcr\d+d?|msvcp\w+|vcruntime\w+|verifier|vrfcore|vfbasics|vfcompat)"
    r"(?:\.dll)?",
    re.IGNORECASE,
)
"""Modules whose frames only pass an allocation on."""

HOW_TO_RECORD = (
    "no allocation stacks are recorded in this dump; to have them: gflags /i {image} +ust (as administrator), "
    "start the program again, take the dump again"
)


@dataclass(frozen=True)
class Question:
    """What is asked. `rows`: the blocks, ascending; `min_bytes`: smaller groups are left out.

    `focus`, `ignore`: only stacks with, without a frame that matches; `skip`: more modules that only pass on.
    """

    by: By
    rows: NDArray[np.int64]
    min_bytes: int = 0
    focus: re.Pattern[str] | None = None
    ignore: re.Pattern[str] | None = None
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeakGroup:
    """One line: its key in words, the blocks, and the frames they have in common (innermost first).

    `trust`: of the key; what blocks hold is told by what they look like.
    """

    key: str
    group: Group
    frames: tuple[Frame, ...]
    trust: Trust = Trust.EXACT


@dataclass(frozen=True)
class Leaks:
    """Groups, most bytes first. `by`: the key that was used, another than asked for where `missing` says why.

    `blocks`, `bytes` of these groups, `left_*` of smaller and suppressed ones; `suppressed` rules that matched, `unused`
    those that no stack matches. `rows`: the blocks of these groups, `values` the group value of each.
    """

    by: By
    groups: tuple[LeakGroup, ...]
    missing: str
    blocks: int
    bytes: int
    left_blocks: int
    left_bytes: int
    rows: NDArray[np.int64]
    values: NDArray[np.int64]
    suppressed: tuple[Rule, ...]
    unused: tuple[Rule, ...]


def find_leaks(
    process: Process, heaps: Sequence[Heap], table: BlockTable, stacks: Stacks, namer: Callable[[], Namer], question: Question,
    suppressions: Suppressions, crt: Callable[[NDArray[np.int64]], CrtBlocks],
) -> Leaks:  # fmt: skip
    """Groups the blocks; frames are named once for each stack, `namer` is asked for then. `crt`: finds CRT debug blocks among rows."""
    by, missing = question.by, ""
    if by in BY_STACK and not stacks.are_recorded:
        image = (process.image or "app.exe").replace("/", "\\").rpartition("\\")[2]
        by, missing = "type", HOW_TO_RECORD.format(image=image)
    finder = _Finder(process, heaps, table, stacks, namer, question, crt)
    groups = finder.by_stack(by) if by in BY_STACK else finder.by_data(by)
    kept = []
    for found in groups:
        rule = suppressions.match(found.frames)
        if rule is not None:
            rule.count += found.group.count
            rule.bytes += found.group.bytes
        elif found.group.bytes >= question.min_bytes:
            kept.append(found)
    used = tuple(rule for rule in suppressions.rules if rule.count)
    unused = tuple(rule for rule in suppressions.rules if not rule.matched)
    blocks, size = (sum(getattr(found.group, name) for found in kept) for name in ("count", "bytes"))
    all_blocks, all_bytes = (sum(getattr(found.group, name) for found in groups) for name in ("count", "bytes"))
    rows, values = finder.rows_of({found.group.value for found in kept})
    left = (all_blocks - blocks, all_bytes - size)
    return Leaks(by, tuple(kept), missing, blocks, size, *left, rows, values, used, unused if by in BY_STACK else ())


class _Finder:
    """Makes the groups of one question."""

    def __init__(
        self, process: Process, heaps: Sequence[Heap], table: BlockTable, stacks: Stacks, namer: Callable[[], Namer], question: Question,
        crt: Callable[[NDArray[np.int64]], CrtBlocks],
    ) -> None:  # fmt: skip
        self._process, self._heaps, self._table = process, tuple(heaps), table
        self._stacks, self._namer, self._question = stacks, namer, question
        self._crt, self._passes_on = crt, passes_on(question.skip)
        self._grouped = (question.rows, np.zeros(len(question.rows), np.int64))

    def rows_of(self, values: set[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(the rows whose group has one of these values, the value of each)."""
        rows, numbers = self._grouped
        wanted = np.isin(numbers, np.array(sorted(values), np.int64))
        return rows[wanted], numbers[wanted]

    def by_data(self, by: By) -> list[LeakGroup]:
        """Groups by size, heap, source line, class or content."""
        table, rows = self._table, self._question.rows
        if by == "size":
            numbers, values = dense(table.size[rows])
            return self._labelled(numbers, [f"{value:,} bytes" for value in values])
        if by == "heap":
            labels = [f"heap #{heap.index} {heap.address:#x}" for heap in self._heaps]
            return self._labelled(table.heap[rows].astype(np.int64), labels)
        if by == "source":
            from heapdump.analyses.allocated.crt import by_source

            return self._labelled(*by_source(self._process.space, rows, self._crt(rows)))
        views = view_by_heap(self._process, self._heaps)
        shaped = shapes(self._process, views, table, rows, by_class=by == "type")
        return self._labelled(shaped.numbers, shaped.labels, shaped.trusts)

    def _labelled(self, numbers: NDArray[np.int64], labels: list[str], trusts: Sequence[Trust] = ()) -> list[LeakGroup]:
        """`trusts`: of the labels, by the same numbers; none given: all are exact."""
        self._grouped = (self._question.rows, numbers)
        groups = group(self._table, self._question.rows, numbers, range(len(labels)))
        sure = trusts or [Trust.EXACT] * len(labels)
        return [LeakGroup(labels[found.value], found, (), sure[found.value]) for found in groups]

    def by_stack(self, by: By) -> list[LeakGroup]:
        """Groups by stack, or by a part of it; stacks of the same frames are one."""
        rows = self._question.rows
        numbers, values = dense(self._stacks.numbers(rows, checked=False))
        owner = np.zeros(len(values), np.int64)
        owner[numbers] = self._table.heap[rows]
        raw = [
            self._stacks.frames(self._heaps[heap], value) for heap, value in zip(owner.tolist(), values, strict=True)
        ]
        namer = self._namer()
        frames = [tuple(frame for address in addresses for frame in namer.frames(address)) for addresses in raw]
        keys = [self._key(by, addresses, named) for addresses, named in zip(raw, frames, strict=True)]
        places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        remap = np.array([places[key] for key in keys], np.int64)
        shown = {places[key]: named for key, named in zip(reversed(keys), reversed(frames), strict=True)}
        wanted = np.array([self._is_wanted(named) for named in frames], bool)
        keep = wanted[numbers] if len(values) else np.zeros(0, bool)
        self._grouped = (rows[keep], remap[numbers[keep]] if len(remap) else numbers[keep])
        groups = group(self._table, *self._grouped, range(len(places)))
        named_keys = list(places)
        return [
            LeakGroup(self._label(by, named_keys[found.value], frames_of), found, self._common(by, frames_of))
            for found in groups
            for frames_of in [shown[found.value]]
        ]

    def _key(self, by: By, addresses: tuple[int, ...], named: tuple[Frame, ...]) -> object:
        if by == "stack" or not addresses:
            return addresses
        caller = self.caller(named)
        if caller is None:
            return "only allocator frames"
        return (caller.module or str(caller)) if by == "module" else str(caller)

    def _label(self, by: By, key: object, frames: tuple[Frame, ...]) -> str:
        if not frames:
            return "no stack recorded"
        if by == "stack":
            first, *callers = [frame for frame in frames if not self._passes_on(frame)][:_KEY_FRAMES] or frames[:1]
            return " ← ".join([str(first), *(frame.symbol or str(frame) for frame in callers)])
        return str(key)

    def _common(self, by: By, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
        """What the stacks of a group share: all frames, or the caller itself."""
        if by == "stack":
            return frames
        caller = self.caller(frames)
        return (caller,) if by == "caller" and caller is not None else ()

    def caller(self, frames: Sequence[Frame]) -> Frame | None:
        """The first frame outside the modules that only pass allocations on."""
        return next((frame for frame in frames if not self._passes_on(frame)), None)

    def _is_wanted(self, frames: tuple[Frame, ...]) -> bool:
        focus, ignore = self._question.focus, self._question.ignore
        texts = [str(frame) for frame in frames]
        if focus is not None and not any(focus.search(text) for text in texts):
            return False
        return ignore is None or not any(ignore.search(text) for text in texts)


def passes_on(skip: Sequence[str]) -> Callable[[Frame], bool]:
    """A test for frames that only pass an allocation on: of allocator modules, and of those named in `skip`."""
    more = {name.lower().removesuffix(".dll") for name in skip}

    def test(frame: Frame) -> bool:
        """True when the frame's module is one of them."""
        module = (frame.module or "").lower()
        return bool(ALLOCATORS.fullmatch(module)) or module.removesuffix(".dll") in more

    return test
