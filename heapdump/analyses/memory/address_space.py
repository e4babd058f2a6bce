"""The address space of a process: what is free, in which pieces, who sits between them, what a request needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from heapdump.analyses.memory.address_limit import AddressLimit, address_limit
from heapdump.analyses.memory.allocations import Allocations
from heapdump.analyses.memory.free_runs import FreeSpace, free_runs, free_space
from heapdump.analyses.memory.gaps import Divider, Gaps, Neighbours
from heapdump.analyses.memory.occupants import Occupant, Occupants, Reason
from heapdump.analyses.memory.pointers_into import pointers_into
from heapdump.analyses.memory.usage import FREE, UsageMap
from heapdump.memory.regions import State
from heapdump.process.symbols.namer import Namer
from heapdump.process.symbols.store import SymbolStores
from heapdump.spans import Span

_MOST_REFERRERS = 3
_MAKING_ROOM = 3
"""The most dividers that are named because a request would fit without one of them."""


@dataclass(frozen=True, slots=True)
class ExplainedDivider:
    """Allocations that keep free runs apart, each with the reason for its place."""

    divider: Divider
    occupants: tuple[Occupant, ...]


@dataclass(frozen=True, slots=True)
class UsageBytes:
    """The address space of one usage.

    Attributes:
        name: the usage in WinDbg's words.
        regions: number of its regions.
        bytes: committed and reserved bytes.
        committed_bytes: committed bytes.
    """

    name: str
    regions: int
    bytes: int
    committed_bytes: int

    @property
    def reserved_bytes(self) -> int:
        """Bytes that are reserved and not committed."""
        return self.bytes - self.committed_bytes


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """A request of address space.

    Attributes:
        bytes: its size.
        fitting: number of free runs that it fits in.
        dividers: where it fits in none, at most three; without any one of them it would fit.
    """

    bytes: int
    fitting: int
    dividers: tuple[ExplainedDivider, ...] = ()


@dataclass(frozen=True, slots=True)
class AddressSpaceReport:
    """The answer of `gaps`.

    Attributes:
        limit: end of the address space.
        free: all free runs in numbers.
        runs: the largest free runs with their neighbours, the largest first.
        dividers: allocations that keep free runs apart, those that keep most bytes apart first.
        has_more_dividers: True where there are more of them than the question wanted.
        usage: committed and reserved bytes by usage, most bytes first.
        request: the request that was asked about; None without one.
    """

    limit: AddressLimit
    free: FreeSpace
    runs: tuple[Neighbours, ...]
    dividers: tuple[ExplainedDivider, ...]
    has_more_dividers: bool
    usage: tuple[UsageBytes, ...]
    request: AddressRequest | None

    @property
    def has_unsearched(self) -> bool:
        """True where a divider is private memory, and no pointers to it were searched for."""
        dividers = (*self.dividers, *(self.request.dividers if self.request else ()))
        found = (one for explained in dividers for one in explained.occupants)
        return any(one.reason is Reason.PRIVATE and one.has_more_referrers is None for one in found)


@dataclass(frozen=True, slots=True)
class AddressSpaceQuestion:
    """The question to an address space.

    Attributes:
        request: bytes of a request; None without one.
        runs: number of free runs to give.
        dividers: number of dividers to give.
        images: stores of image files, for headers that the dump lacks; None for none.
    """

    request: int | None
    runs: int
    dividers: int
    images: SymbolStores | None


def examine(usage: UsageMap, namer: Namer, question: AddressSpaceQuestion) -> AddressSpaceReport | None:
    """The report; None without a complete memory map. Walks no heap."""
    process = usage.process
    if not process.regions.is_complete_map:
        return None
    limit = address_limit(process, question.images)
    runs = free_runs(process.regions, limit.end)
    allocations = Allocations(usage)
    gaps = Gaps(runs, allocations)
    occupants = Occupants(process, allocations, namer, question.images)
    found, size = gaps.dividers(question.dividers + 1), question.request
    fitting = 0 if size is None else gaps.fitting(size)
    making_room = [] if size is None or fitting else gaps.making_room(size, _MAKING_ROOM)
    wanted = list(dict.fromkeys([*found[: question.dividers], *making_room]))
    explained = [ExplainedDivider(one, tuple(occupants.of(member) for member in one.members)) for one in wanted]
    known = dict(zip(wanted, _with_referrers(usage, explained), strict=True))
    return AddressSpaceReport(
        limit,
        free_space(runs),
        tuple(gaps.largest(question.runs)),
        tuple(known[one] for one in found[: question.dividers]),
        len(found) > question.dividers,
        _usage(usage),
        None if size is None else AddressRequest(size, fitting, tuple(known[one] for one in making_room)),
    )


def _usage(usage: UsageMap) -> tuple[UsageBytes, ...]:
    """A row for each usage but free memory, most bytes first."""
    table, out = usage.table, []
    is_committed = table.state == State.MEM_COMMIT
    for code, name in enumerate(usage.names):
        rows = usage.codes == code
        if name != FREE and rows.any():
            total, committed = (int(table.size[chosen].sum()) for chosen in (rows, rows & is_committed))
            out.append(UsageBytes(name, int(rows.sum()), total, committed))
    return tuple(sorted(out, key=lambda row: (-row.bytes, row.name)))


def _with_referrers(usage: UsageMap, dividers: list[ExplainedDivider]) -> list[ExplainedDivider]:
    """The dividers, private memory with the words that point into it."""
    private = [one for explained in dividers for one in explained.occupants if one.reason is Reason.PRIVATE]
    spans = [one.allocation.span for one in private]
    found = pointers_into(usage.process, spans, _MOST_REFERRERS + 1)
    if found is None:
        return dividers
    referrers = dict(zip(spans, found, strict=True))
    return [
        replace(explained, occupants=tuple(_with_own(one, referrers) for one in explained.occupants))
        for explained in dividers
    ]


def _with_own(occupant: Occupant, referrers: Mapping[Span, tuple[int, ...]]) -> Occupant:
    """The occupant with its first referrers; unchanged where they were not searched for."""
    own = referrers.get(occupant.allocation.span)
    if own is None:
        return occupant
    return replace(occupant, referrers=own[:_MOST_REFERRERS], has_more_referrers=len(own) > _MOST_REFERRERS)
