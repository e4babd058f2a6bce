"""Who holds the memory in heap blocks: the largest groups, the unreachable blocks, the leak suspects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from heapdump.analyses.allocated.leaks import Leaks
from heapdump.analyses.allocated.top_groups import group_sentence, top_groups
from heapdump.analyses.graph.overview import GraphOverview
from heapdump.blocks.heap import Heap

_MOST_GROUPS, _MOST_SUSPECTS = 2, 1
_BIG_SHARE = 0.25


class HolderKind(StrEnum):
    """The kind of a holder."""

    GROUP = "group"
    UNREACHABLE = "unreachable"
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class Holder:
    """Some blocks of the program, and what they have in common.

    `key`: of a group, "" for the others. `blocks`: None where they were not counted. `share`: of `of_bytes`: of the
    requested bytes of all busy blocks, of a suspect of the bytes that roots hold. `address`: of the one block of a
    suspect. `command`: arguments of the command that shows more.
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


def holders(leaks: Leaks, heaps: Sequence[Heap], graph: GraphOverview | None) -> tuple[Holder, ...]:
    """The largest groups of blocks, then unreachable blocks and leak suspects as far as the pointer graph was made."""
    return (*_groups(leaks, heaps), *(_graph(graph) if graph is not None and leaks.blocks else ()))


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
