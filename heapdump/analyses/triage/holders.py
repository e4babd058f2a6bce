"""Who holds the memory: the largest groups of blocks, unreachable blocks, leak suspects, the largest managed types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from heapdump.analyses.allocated.leaks import LeakGroup, Leaks
from heapdump.analyses.allocated.stack_keys import passes_on, verifiers_own
from heapdump.analyses.allocated.top_groups import group_sentence, top_groups
from heapdump.analyses.graph.overview import GraphOverview
from heapdump.blocks.heap import Heap
from heapdump.runtimes.runtime import FREE, Runtime, TypeCount
from heapdump.wording import plural, short_size

_MOST_GROUPS, _MOST_SUSPECTS = 2, 1
_BIG_SHARE = 0.25
_VERIFIER_SHARE = 0.05
_VERIFIER_KEY = "Application Verifier"


class HolderKind(StrEnum):
    """The kind of a holder; the value is the word of the JSON."""

    GROUP = "group"
    UNREACHABLE = "unreachable"
    SUSPECT = "suspect"
    MANAGED = "managed"


@dataclass(frozen=True, slots=True)
class Holder:
    """Blocks of the program, or objects of a runtime, that have something in common.

    Attributes:
        kind: a group, unreachable blocks, a leak suspect, or a managed type.
        sentence: the holder, for a person.
        key: of a group, or name of a managed type; "" for the others.
        blocks: number of blocks or objects; None where they were not counted.
        bytes: their bytes.
        share: bytes / of_bytes, 0 to 1; None where `of_bytes` is None.
        of_bytes: of a group the requested bytes of all busy blocks, of a suspect the bytes that roots hold, of a type
            the bytes of all objects; None where they are not known.
        heaps: addresses of the heaps that have the blocks.
        address: of the one block of a suspect; None for others.
        command: arguments of the command that shows more.
        is_bad: True for unreachable blocks where the pointer graph is complete.
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
    leaks: Leaks,
    heaps: Sequence[Heap],
    graph: GraphOverview | None,
    runtimes: Sequence[Runtime] = (),
    *,
    has_verifier: bool = False,
) -> tuple[Holder, ...]:
    """The largest groups of blocks, then unreachable blocks and leak suspects as far as the pointer graph was made.

    The largest managed types stand before them where the objects are larger than all the blocks. `has_verifier`: a
    module of Application Verifier is loaded; what it allocated for itself is one group, the first.
    """
    groups = tuple(_groups(leaks, heaps, has_verifier=has_verifier))
    native = (
        *groups,
        *(
            _graph(graph, has_verifier=any(one.key == _VERIFIER_KEY for one in groups))
            if graph is not None and leaks.blocks
            else ()
        ),
    )
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


def _groups(leaks: Leaks, heaps: Sequence[Heap], *, has_verifier: bool) -> Iterator[Holder]:
    command = ("leaks", "--group-by", leaks.by)
    verifiers, others = _split(leaks) if has_verifier else ([], leaks.groups)
    yield from _verifier(leaks, verifiers, heaps)
    others_share = 1 - sum(one.group.share for one in verifiers)
    for found in top_groups(others, others_share)[:_MOST_GROUPS]:
        group = found.group
        yield Holder(
            HolderKind.GROUP, group_sentence(leaks, found, heaps), found.key, group.count, group.bytes, group.share,
            leaks.bytes, tuple(heaps[heap].address for heap in group.heaps), None, command,
        )  # fmt: skip


def _split(leaks: Leaks) -> tuple[list[LeakGroup], list[LeakGroup]]:
    """The groups of blocks that Application Verifier allocated for itself, and all others."""
    passes = passes_on(())
    verifiers, others = list[LeakGroup](), list[LeakGroup]()
    for one in leaks.groups:
        (verifiers if one.frames and verifiers_own(one.frames, passes) else others).append(one)
    return verifiers, others


def _verifier(leaks: Leaks, verifiers: Sequence[LeakGroup], heaps: Sequence[Heap]) -> Iterator[Holder]:
    """All that Verifier holds as one group, where it is a part of the memory worth a line."""
    groups = [one.group for one in verifiers]
    count, size = sum(one.count for one in groups), sum(one.bytes for one in groups)
    if not leaks.bytes or size / leaks.bytes < _VERIFIER_SHARE:
        return
    of = f"{size / leaks.bytes:.1%} of the {short_size(leaks.bytes)} in heap blocks"
    sentence = f"{of}: {plural(count, 'block')} that Application Verifier allocated for itself"
    addresses = tuple(sorted({heaps[heap].address for one in groups for heap in one.heaps}))
    yield Holder(
        HolderKind.GROUP, sentence, _VERIFIER_KEY, count, size, size / leaks.bytes, leaks.bytes, addresses, None,
        ("leaks", "--group-by", "module"),
    )  # fmt: skip


def _graph(graph: GraphOverview, *, has_verifier: bool) -> Iterator[Holder]:
    if graph.leaked.blocks:
        own = "; Application Verifier's own may be among them" if has_verifier and graph.has_way_in else ""
        question = ("leaks", "--unreachable") if graph.has_way_in else ("leaks", "--group-by", "type")
        yield Holder(
            HolderKind.UNREACHABLE, graph.sentence + own, "", graph.leaked.blocks, graph.leaked.bytes, None, None,
            (), None, question, graph.is_complete,
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
