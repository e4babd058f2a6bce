"""Groups of busy blocks of several dumps, matched by what they have in common (compare.md §3).

Groups are compared, never blocks: of blocks with equal address and size 2.4 % are other allocations (28 recorded
processes), and 42 % of freed addresses are in use again. Counts and bytes of groups add up, whatever is recycled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.allocated.leaks import LeakGroup
from heapdump.analyses.compare.code_names import CodeNames
from heapdump.analyses.compare.heaps import HeapKey
from heapdump.analyses.compare.trend import Trend, trend_of
from heapdump.process.model import Process
from heapdump.process.symbols.namer import Frame
from heapdump.trust import Trust


@dataclass(frozen=True, slots=True)
class Amount:
    """The blocks of a group in one dump: their number and their requested bytes."""

    count: int
    bytes: int


NO_AMOUNT = Amount(0, 0)
_FEW = 2
"""Dumps that show a difference and no trend."""


@dataclass(frozen=True, slots=True)
class GroupInDump:
    """A group of busy blocks in one dump.

    Attributes:
        label: as `leaks` prints it.
        frames: allocation stack, innermost first; () for groups by other keys.
        amount: blocks and requested bytes.
        min_size: fewest requested bytes of a block.
        max_size: most requested bytes of a block.
        sample: addresses of user data of some of its blocks.
        trust: in the key.
    """

    label: str
    frames: tuple[Frame, ...]
    amount: Amount
    min_size: int
    max_size: int
    sample: tuple[int, ...]
    trust: Trust


Groups = dict[Hashable, GroupInDump]
"""Comparable key → group."""


@dataclass(frozen=True, slots=True)
class GroupTrend:
    """The trend of a group over three dumps or more.

    Attributes:
        bytes: trend of its bytes.
        slope_count: blocks per hour, or per dump where times are not known.
        share: its growth / the growth of all groups that grew; 0 for a group that did not grow.
    """

    bytes: Trend
    slope_count: float
    share: float

    @property
    def score(self) -> float:
        """Slope of the bytes times share of the growth; groups are ordered by it."""
        return self.bytes.slope * self.share


@dataclass(frozen=True, slots=True)
class ComparedGroup:
    """A group of busy blocks in every dump.

    `id`: hash of the key, the same in every run of heapdump and in other dumps of the program. `values`: its amount in
    each dump, in their order. `trend`: None for two dumps. The other members are those of `GroupInDump` in the last
    dump that has the group.
    """

    id: str
    label: str
    frames: tuple[Frame, ...]
    values: tuple[Amount, ...]
    min_size: int
    max_size: int
    sample: tuple[int, ...]
    trust: Trust
    trend: GroupTrend | None = None

    @property
    def old(self) -> Amount:
        """The amount in the first dump."""
        return self.values[0]

    @property
    def new(self) -> Amount:
        """The amount in the last dump."""
        return self.values[-1]

    @property
    def delta_bytes(self) -> int:
        """Last minus first."""
        return self.new.bytes - self.old.bytes

    @property
    def delta_count(self) -> int:
        """Last minus first."""
        return self.new.count - self.old.count

    @property
    def has_changed(self) -> bool:
        """True where two dumps differ."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class GroupedDump:
    """The groups of one dump as `leaks` makes them.

    Attributes:
        process: the process.
        by: key of the groups.
        groups: the groups.
        heap_keys: comparable key of each heap, by its index.
    """

    process: Process
    by: GroupKey
    groups: Sequence[LeakGroup]
    heap_keys: Sequence[HeapKey]


def take_groups(dump: GroupedDump, names: CodeNames) -> Groups:
    """The groups of one dump under comparable keys."""
    out: Groups = {}
    for group in dump.groups:
        key, trust = _key(dump, group, names)
        numbers = group.group
        taken = GroupInDump(
            group.key, group.frames, Amount(numbers.count, numbers.bytes), numbers.min_size, numbers.max_size,
            numbers.sample, min((group.trust, trust), key=_TRUST_ORDER.index),
        )  # fmt: skip
        out[key] = _joined(out[key], taken) if key in out else taken
    return out


_TRUST_ORDER = [Trust.GUESS, Trust.DERIVED, Trust.EXACT]


def _key(dump: GroupedDump, group: LeakGroup, names: CodeNames) -> tuple[Hashable, Trust]:
    """(the comparable key of a group, its trust)."""
    if group.frames:
        return names.names(dump.process, group.frames)
    if dump.by is GroupKey.HEAP:
        return dump.heap_keys[group.group.value], Trust.EXACT
    return group.identity or str(group.key), Trust.EXACT  # an enum of words has another repr


def _joined(first: GroupInDump, second: GroupInDump) -> GroupInDump:
    """Two groups of one dump with the same key, such as two call sites of a function in a module of several builds."""
    amount = Amount(first.amount.count + second.amount.count, first.amount.bytes + second.amount.bytes)
    return GroupInDump(
        first.label, first.frames, amount, min(first.min_size, second.min_size), max(first.max_size, second.max_size),
        first.sample, min((first.trust, second.trust), key=_TRUST_ORDER.index),
    )  # fmt: skip


def match_groups(dumps: Sequence[Groups], hours: Sequence[float] | None) -> tuple[ComparedGroup, ...]:
    """Every group of every dump once.

    Of two dumps those whose bytes changed most come first, then by blocks, then by bytes; of more dumps those with the
    highest score. `hours`: time of each dump, None where times are not known.
    """
    keys = dict.fromkeys(key for dump in dumps for key in dump)
    found = [_compared(key, [dump.get(key) for dump in dumps]) for key in keys]
    if len(dumps) > _FEW:
        grown = sum(group.delta_bytes for group in found if group.delta_bytes > 0)
        found = [replace(group, trend=_trend(group, hours, grown)) for group in found]
    return tuple(sorted(found, key=_order))


def _order(group: ComparedGroup) -> tuple[float, int, int, int, str, str]:
    """Groups with a score first, then by the change."""
    score = group.trend.score if group.trend else 0.0
    change = abs(group.delta_bytes), abs(group.delta_count)
    return (-score, -change[0], -change[1], -group.new.bytes, group.label, group.id)


def _trend(group: ComparedGroup, hours: Sequence[float] | None, grown: int) -> GroupTrend:
    """The trend of a group; `grown`: the growth of all groups that grew."""
    share = max(0, group.delta_bytes) / grown if grown else 0.0
    counts = trend_of([value.count for value in group.values], hours)
    return GroupTrend(trend_of([value.bytes for value in group.values], hours), counts.slope, share)


def _compared(key: Hashable, values: Sequence[GroupInDump | None]) -> ComparedGroup:
    last = next(value for value in reversed(values) if value is not None)
    trusts = [value.trust for value in values if value is not None]
    return ComparedGroup(
        hashlib.sha256(repr(key).encode()).hexdigest()[:16],
        last.label,
        last.frames,
        tuple(value.amount if value else NO_AMOUNT for value in values),
        last.min_size,
        last.max_size,
        last.sample,
        min(trusts, key=_TRUST_ORDER.index),
    )
