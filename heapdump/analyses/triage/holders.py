"""Who holds the memory: the largest groups of blocks, unreachable blocks, leak suspects, the largest managed types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from heapdump.analyses.allocated.leaks import Leaks
from heapdump.analyses.allocated.top_groups import group_sentence, top_groups
from heapdump.analyses.graph.overview import GraphOverview
from heapdump.blocks.heap import Heap
from heapdump.runtimes.runtime import FREE, Runtime, TypeCount
from heapdump.wording import short_size

_MOST_GROUPS, _MOST_SUSPECTS = 2, 1
_BIG_SHARE = 0.25


class HolderKind(StrEnum):
    """The kind of a holder."""

    GROUP = "group"
    UNREACHABLE = "unreachable"
    SUSPECT = "suspect"
    MANAGED = "managed"


@dataclass(frozen=True, slots=True)
class Holder:
    """Some blocks of the program, or objects of a runtime, and what they have in common.

    `key`: of a group, and the name of a managed type; "" for the others. `blocks`: the number of blocks or objects,
    None where they were not counted. `share`: of `of_bytes`: of the requested bytes of all busy blocks, of a suspect of
    the bytes that roots hold, of a type of the bytes of all objects. `address`: of the one block of a suspect.
    `command`: arguments of the command that shows more.
    """

    kind: HolderKind
    sentence: str
    key: str
    blocks: int | None
    bytes: int
    share: float | None
    of_bytes: int | None
    heaps: tuple[int, ...]
    address: int | None
    command: tuple[str, ...]
    is_bad: bool = False


def holders(
    leaks: Leaks, heaps: Sequence[Heap], graph: GraphOverview | None, runtimes: Sequence[Runtime] = ()
) -> tuple[Holder, ...]:
    """The largest groups of blocks, then unreachable blocks and leak suspects as far as the pointer graph was made.

    The largest managed types stand before them where the objects are larger than all the blocks.
    """
    native = (*_groups(leaks, heaps), *(_graph(graph) if graph is not None and leaks.blocks else ()))
    types = {runtime.info.kind: _types(runtime) for runtime in runtimes}
    managed = tuple(holder for kind, found in types.items() for holder in _managed(kind, found))
    is_larger = sum(one.bytes for found in types.values() for one in found) > leaks.bytes
    return (*managed, *native) if is_larger else (*native, *managed)


def _types(runtime: Runtime) -> list[TypeCount]:
    return [one for one in runtime.heap.types() if one.type != FREE] if runtime.heap is not None else []


def _managed(kind: str, types: Sequence[TypeCount]) -> Iterator[Holder]:
    """The largest types of a runtime's heap."""
    total = sum(one.bytes for one in types)
    for one in types[:_MOST_GROUPS]:
        of = f"of the {short_size(total)} in {kind} objects"
        sentence = f"{one.bytes / total:.1%} {of}: {one.count:,} {one.type}, {short_size(one.bytes)}"
        yield Holder(
            HolderKind.MANAGED, sentence, one.type, one.count, one.bytes, one.bytes / total, total, (), None,
            ("managed",),
        )  # fmt: skip


def _groups(leaks: Leaks, heaps: Sequence[Heap]) -> Iterator[Holder]:
    command = ("leaks", "--group-by", leaks.by)
    for found in top_groups(leaks)[:_MOST_GROUPS]:
        group = found.group
        yield Holder(
            HolderKind.GROUP, group_sentence(leaks, found, heaps), found.key, group.count, group.bytes, group.share,
            leaks.bytes, tuple(heaps[heap].address for heap in group.heaps), None, command,
        )  # fmt: skip


def _graph(graph: GraphOverview) -> Iterator[Holder]:
    if graph.leaked.blocks:
        yield Holder(
            HolderKind.UNREACHABLE, graph.sentence, "", graph.leaked.blocks, graph.leaked.bytes, None, None, (), None,
            ("leaks", "--unreachable"), graph.is_complete,
        )  # fmt: skip
    if not graph.has_way_in:
        return  # what ntdll alone holds is not where the program's memory went
    for suspect in [one for one in graph.suspects if one.share >= _BIG_SHARE][:_MOST_SUSPECTS]:
        command = ("retained",) if suspect.address is None else ("retained", f"{suspect.address:#x}")
        total = round(suspect.bytes / suspect.share) if suspect.share else None
        yield Holder(
            HolderKind.SUSPECT, suspect.sentence, "", None, suspect.bytes, suspect.share, total, (), suspect.address,
            command,
        )  # fmt: skip
