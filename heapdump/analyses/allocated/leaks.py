"""Busy blocks in groups, by the stack that allocated them or by their content.

In: rows of the block table and a key. Out: `Leaks`, a few groups out of millions of blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.by import By
from heapdump.analyses.allocated.groups import BlockGroup, dense, group
from heapdump.analyses.allocated.stack_keys import distinct, stack_key
from heapdump.analyses.allocated.stacks import Stacks
from heapdump.analyses.allocated.suppressions import Rule, RuleCount, Suppressions
from heapdump.analyses.types.block_types import types_of, view_by_heap
from heapdump.analyses.types.content_kind import ContentKind
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.process.model import Process
from heapdump.trust import Trust

if TYPE_CHECKING:  # imported where stacks are named, and where blocks are typed
    from heapdump.analyses.types.typing import BlockTyping
    from heapdump.process.symbols.namer import Frame, Namer

Rows = NDArray[np.int64]
_ALLOCATORS = re.compile(
    r"(?:ntdll|kernelbase|kernel32|ucrtbased?|msvcrt|msvcr\d+d?|msvcp\w+|vcruntime\w+|verifier|vrfcore|vfbasics|vfcompat|"
    r"DynamicClass)"
    r"(?:\.dll)?",
    re.IGNORECASE,
)
"""Modules whose frames only pass an allocation on. `DynamicClass`: stubs of .NET between managed and native code."""

HOW_TO_RECORD = (
    "no allocation stacks are recorded in this dump; to have them: gflags /i {image} +ust (as administrator), "
    "start the program again, take the dump again"
)


@dataclass(frozen=True, slots=True)
class LeakContext:
    """The dump that blocks are grouped in.

    `table`: all blocks; `namer()` makes the names of frames, and is called only for keys made of stacks; `crt(rows)`: the
    CRT debug blocks among rows of the block table; `typing()`, `owners()`: the types and the owners of all
    blocks, by the pointer graph.
    """

    process: Process
    heaps: Sequence[Heap]
    table: BlockTable
    stacks: Stacks
    namer: Callable[[], Namer]
    crt: Callable[[Rows], CrtBlocks]
    typing: Callable[[], BlockTyping]
    owners: Callable[[], BlockTyping]


@dataclass(frozen=True, slots=True)
class LeakQuestion:
    """The blocks and their key. `rows` (n,) int64, ascending; groups of less than `min_bytes` bytes are left out.

    Of keys made of stacks: `focus`, `ignore`: only stacks with, only stacks without a frame that matches; `skip`: names of
    modules that pass allocations on, besides those of Windows and the C runtime.
    """

    by: By
    rows: Rows
    min_bytes: int = 0
    focus: re.Pattern[str] | None = None
    ignore: re.Pattern[str] | None = None
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeakGroup:
    """The blocks of one key. `key`: in words; `frames` that their stacks have in common, innermost first.

    `trust` of the key: a key made of the content of blocks is a guess. `identity`: what stays the same of the key in other
    dumps of the program, "" for the key itself.
    """

    key: str
    group: BlockGroup
    frames: tuple[Frame, ...]
    trust: Trust = Trust.EXACT
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Leaks:
    """Groups, most bytes first. `by`: the key that was used; `missing`: why it is not the key of the question, or "".

    `blocks`, `bytes` of these groups; `omitted_blocks`, `omitted_bytes` of small and suppressed groups. `rows` (n,) int64:
    the blocks of these groups, ascending; `values` (n,) int64: `BlockGroup.value` of each. `suppressed`: rules that
    suppress groups; `unused`: rules that match no stack.
    """

    by: By
    groups: tuple[LeakGroup, ...]
    missing: str
    blocks: int
    bytes: int
    omitted_blocks: int
    omitted_bytes: int
    rows: Rows
    values: NDArray[np.int64]
    suppressed: tuple[RuleCount, ...]
    unused: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class _Grouping:
    """All groups of a question, most bytes first; `rows`, `values` as in `Leaks`."""

    groups: list[LeakGroup]
    rows: Rows
    values: NDArray[np.int64]


def find_leaks(context: LeakContext, question: LeakQuestion, suppressions: Suppressions | None = None) -> Leaks:
    """Groups the blocks. Where no stacks are recorded, keys made of stacks become types, or modules of owners; each stack is named once."""
    by, missing = question.by, ""
    if by.needs_stacks and not context.stacks.are_recorded:
        by, missing = By.OWNER_MODULE if by is By.MODULE else By.TYPE, how_to_record(context.process)
    grouping = _StackGrouper(context, question, by).grouping() if by.needs_stacks else _by_data(context, question, by)
    suppressions = suppressions or Suppressions()
    reported: list[LeakGroup] = []
    matched: set[Rule] = set()
    suppressed: dict[Rule, list[BlockGroup]] = {}
    for found in grouping.groups:
        rules = suppressions.matches(found.frames)
        matched.update(rules)
        if rules:
            suppressed.setdefault(rules[0], []).append(found.group)
        elif found.group.bytes >= question.min_bytes:
            reported.append(found)
    blocks, size = _sums([found.group for found in reported])
    all_blocks, all_bytes = _sums([found.group for found in grouping.groups])
    is_reported = np.isin(grouping.values, np.array(sorted(found.group.value for found in reported), np.int64))
    counts = (RuleCount(rule, *_sums(suppressed[rule])) for rule in suppressions.rules if rule in suppressed)
    unused = (rule for rule in suppressions.rules if rule not in matched and by.needs_stacks)
    return Leaks(
        by, tuple(reported), missing, blocks, size, all_blocks - blocks, all_bytes - size,
        grouping.rows[is_reported], grouping.values[is_reported], tuple(counts), tuple(unused),
    )  # fmt: skip


def how_to_record(process: Process) -> str:
    """Why no stack is known, and the command that makes Windows record them."""
    image = (process.image or "app.exe").replace("/", "\\").rpartition("\\")[2]
    return HOW_TO_RECORD.format(image=image)


def _sums(groups: Sequence[BlockGroup]) -> tuple[int, int]:
    """(blocks, bytes) of some groups together."""
    return sum(one.count for one in groups), sum(one.bytes for one in groups)


def _by_data(context: LeakContext, question: LeakQuestion, by: By) -> _Grouping:
    """Groups by size, heap, source line, class or content."""
    table, rows = context.table, question.rows
    if by is By.SIZE:
        numbers, values = dense(table.size[rows])
        return _labelled(context, rows, numbers, [f"{value:,} bytes" for value in values])
    if by is By.HEAP:
        labels = [f"heap #{heap.index} {heap.address:#x}" for heap in context.heaps]
        return _labelled(context, rows, table.heap[rows].astype(np.int64), labels)
    if by is By.SOURCE:
        from heapdump.analyses.allocated.crt import by_source

        return _labelled(context, rows, *by_source(context.process.space, rows, context.crt(rows)))
    if by is By.STRUCTURE:
        return _by_label(context, rows, context.typing(), str(ContentKind.OTHER))
    if by is By.OWNER:
        return _by_label(context, rows, context.owners(), "no owner known")
    if by is By.OWNER_MODULE:
        return _by_label(context, rows, context.owners().by_module(), "no module")
    views = view_by_heap(context.process, tuple(context.heaps))
    found = types_of(context.process, views, table, rows, by_class=by is By.TYPE)
    return _labelled(context, rows, found.numbers, found.labels, found.trusts)


def _by_label(context: LeakContext, rows: Rows, typing: BlockTyping, unknown: str) -> _Grouping:
    """Groups by the type or the owner of each block. `unknown`: of blocks that are in no pointer graph."""
    labels = typing.labels
    texts, trusts = [one.label for one in labels], [one.trust for one in labels]
    found = _labelled(context, rows, typing.of_rows(rows), [*texts, unknown], [*trusts, Trust.GUESS])
    identities = [*(one.identity for one in labels), ""]
    groups = [replace(one, identity=identities[one.group.value]) for one in found.groups]
    return _Grouping(groups, found.rows, found.values)


def _labelled(
    context: LeakContext, rows: Rows, numbers: NDArray[np.int64], labels: list[str], trusts: Sequence[Trust] = ()
) -> _Grouping:
    """Groups by dense numbers. `labels`, `trusts` by number; no trusts: all labels are exact."""
    groups = group(context.table, rows, numbers, range(len(labels)))
    by_number = trusts or [Trust.EXACT] * len(labels)
    out = [LeakGroup(labels[found.value], found, (), by_number[found.value]) for found in groups]
    return _Grouping(out, rows, numbers)


class _StackGrouper:
    """Groups by stack, or by a part of it; stacks with the same key are one group."""

    def __init__(self, context: LeakContext, question: LeakQuestion, by: By) -> None:
        self._context, self._question, self._by = context, question, by
        self._passes_on = passes_on(question.skip)

    def grouping(self) -> _Grouping:
        """The groups of the question, without stacks that `focus` and `ignore` leave out."""
        context, rows = self._context, self._question.rows
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
        return _Grouping(out, rows, numbers)

    def _addresses(self, rows: Rows, numbers: NDArray[np.int64], values: list[int]) -> list[tuple[int, ...]]:
        """Return addresses of each stack, innermost first; of a stack of several heaps as the last heap has it."""
        owner = np.zeros(len(values), np.int64)
        owner[numbers] = self._context.table.heap[rows]
        stacks, heaps = self._context.stacks, self._context.heaps
        return [stacks.frames(heaps[heap], value) for heap, value in zip(owner.tolist(), values, strict=True)]

    def _key(self, addresses: tuple[int, ...], named: tuple[Frame, ...]) -> object:
        if self._by is By.STACK or not addresses:
            return addresses
        caller = self._caller(named)
        if caller is None:
            return "only allocator frames"
        return (caller.module or str(caller)) if self._by is By.MODULE else str(caller)

    def _labels(self, keys: list[object], stacks: list[tuple[Frame, ...]]) -> list[str]:
        """The key of each group in words, each once."""
        where = self._context.process.where
        words = [self._words(key, frames) for key, frames in zip(keys, stacks, strict=True)]
        return distinct(words, [[where(frame.address) for frame in frames] for frames in stacks])

    def _words(self, key: object, frames: tuple[Frame, ...]) -> str:
        if not frames:
            return key if isinstance(key, str) else "no stack recorded"
        return stack_key(frames, self._passes_on) if self._by is By.STACK else str(key)

    def _common(self, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
        """The frames that the stacks of a group share: all of them, or the caller."""
        if self._by is By.STACK:
            return frames
        caller = self._caller(frames)
        return (caller,) if self._by is By.CALLER and caller is not None else ()

    def _caller(self, frames: Sequence[Frame]) -> Frame | None:
        """The first frame outside the modules that pass allocations on."""
        return next((frame for frame in frames if not self._passes_on(frame)), None)

    def _is_wanted(self, frames: tuple[Frame, ...]) -> bool:
        focus, ignore = self._question.focus, self._question.ignore
        texts = [str(frame) for frame in frames]
        if focus is not None and not any(focus.search(text) for text in texts):
            return False
        return ignore is None or not any(ignore.search(text) for text in texts)


def passes_on(skip: Sequence[str]) -> Callable[[Frame], bool]:
    """A test for frames that pass an allocation on: of allocator modules, and of the modules named in `skip`."""
    names = {name.lower().removesuffix(".dll") for name in skip}

    def test(frame: Frame) -> bool:
        """True where the frame's module is one of them."""
        module = (frame.module or "").lower()
        return bool(_ALLOCATORS.fullmatch(module)) or module.removesuffix(".dll") in names

    return test
