"""Findings about members of user blocks and subsegments that contradict the places of the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from heapdump.blocks.findings import Finding, Severity
from heapdump.heaps.nt.context import HeapContext, WalkContext
from heapdump.heaps.nt.lfh_members import Members, Subsegment, decoded_offsets, offsets_place
from heapdump.heaps.nt.lfh_recovery import Recovered
from heapdump.heaps.nt.lfh_user_blocks import SIGNATURE, UserArea
from heapdump.heaps.nt.windows import committed_runs


class Contradiction(NamedTuple):
    """A member that contradicts the blocks.

    Attributes:
        address: of the member.
        length: bytes of the member.
        member: its name.
        expected: its right value, in words or hex.
        found: its value, likewise.
    """

    address: int
    length: int
    member: str
    expected: str
    found: str


def report_contradictions(
    context: WalkContext, area: UserArea, members: Members, recovered: Recovered, key: int | None
) -> bool:
    """Adds a finding for each member that contradicts the blocks, and a gap where the subsegment is not in the dump.

    Where no block is busy, the LFH may be setting the subsegment up, so findings are warnings.

    Returns:
        True where a finding or gap was added.
    """
    severity: Severity = "error" if recovered.is_busy else "warning"
    found = list(_contradictions(context, area, members, recovered, key))
    for one in found:
        message = f"{context.name}: {one.member} of the LFH user blocks at {area.address:#x} is damaged"
        place = (one.address, one.length)
        context.log.add_finding(
            Finding("lfh_subsegment", severity, context.address, *place, message, one.expected, one.found)
        )
    if members.subsegment is not None:
        return bool(found)
    if not found:
        where = f"{members.pointer:#x}" if members.pointer else f"the user blocks at {area.address:#x}"
        missing = f"the LFH subsegment of {where} is not in the dump"
        context.log.add_gap(
            f"{context.name}: {missing}; its {recovered.geometry.blocks:,} blocks were told by their headers"
        )
    return True


def is_in_heap(context: HeapContext, address: int) -> bool:
    """True when the address lies in committed memory of the heap."""
    return any(address in run for segment in context.heap.segments for run in committed_runs(segment))


def may_be_missing(context: HeapContext, members: Members) -> bool:
    """True where the subsegment that the user blocks name may lie in memory that the dump lacks.

    Always True where segments of the heap were not found: it may lie in one of them.
    """
    if members.subsegment is not None or not members.pointer:
        return False
    return is_in_heap(context, members.pointer) or not context.heap.is_fully_walked


def is_doubtful(context: HeapContext, area: UserArea, members: Members, recovered: Recovered, key: int | None) -> bool:
    """True where user blocks contradict the headers of their blocks, and the subsegment is not in the dump.

    Such user blocks may be free ones that the LFH keeps, with stale headers of blocks.
    """
    return may_be_missing(context, members) and any(_contradictions(context, area, members, recovered, key))


def _contradictions(
    context: HeapContext, area: UserArea, members: Members, recovered: Recovered, key: int | None
) -> Iterator[Contradiction]:
    header, pointer = context.layout["_HEAP_USERDATA_HEADER"], context.view.pointer_bytes
    if not area.has_signature:
        place = area.address + header.offset("Signature")
        found = context.space.try_integer(place, 4)
        if found is not None:
            yield Contradiction(place, 4, "Signature", f"{SIGNATURE:#x}", f"{found:#x}")
    yield from _links(context, area, members, recovered)
    first, stride, count = recovered.geometry
    if members.offsets is not None and (offsets := decoded_offsets(context, area, members.offsets, key)) is not None:
        place = offsets_place(context, area)
        if offsets[0] != first:
            yield Contradiction(place, 2, "FirstAllocationOffset", f"{first:#x}", f"{offsets[0]:#x}")
        if offsets[1] != stride:
            yield Contradiction(place + 2, 2, "BlockStride", f"{stride:#x}", f"{offsets[1]:#x}")
    if members.bitmap_bits is not None:
        place, bitmap = area.address + header.offset("BusyBitmap"), area.address + header.offset("BitmapData")
        if members.bitmap_bits != count:
            yield Contradiction(place, 4, "the size of BusyBitmap", f"{count}", f"{members.bitmap_bits}")
        if members.bitmap != bitmap:
            place += pointer
            yield Contradiction(
                place, pointer, "the address of BusyBitmap", f"{bitmap:#x}", f"{members.bitmap or 0:#x}"
            )


def _links(context: HeapContext, area: UserArea, members: Members, recovered: Recovered) -> Iterator[Contradiction]:
    """Contradictions of the pointer to the subsegment, of its pointer back, and of its numbers."""
    named, true, pointer = members.subsegment, recovered.subsegment, context.view.pointer_bytes
    leads_back = true is not None and true.user_blocks == area.address
    if named is None and not leads_back and (may_be_missing(context, members) or not members.pointer):
        if context.space.try_pointer(area.address) == 0:
            yield Contradiction(area.address, pointer, "SubSegment", "a subsegment", "0")
        return
    if true is not None and not leads_back and _fits(true, recovered):
        place = true.address + context.layout["_HEAP_SUBSEGMENT"].offset("UserBlocks")
        yield Contradiction(place, pointer, "the way back", f"{area.address:#x}", f"{true.user_blocks:#x}")
        return
    is_there = context.space.try_pointer(area.address) == members.pointer  # else the dump lacks a part of the header
    if is_there and (true is None or not leads_back or true.address != members.pointer):
        expected = f"{true.address:#x}" if true is not None and leads_back else "a subsegment that leads back"
        yield Contradiction(area.address, pointer, "SubSegment", expected, f"{members.pointer:#x}")
    if true is not None and leads_back:
        yield from _numbers(context, true, recovered)


def _fits(subsegment: Subsegment, recovered: Recovered) -> bool:
    """True when BlockSize and BlockCount of the subsegment are those of the blocks."""
    return (subsegment.stride, subsegment.count) == recovered.geometry[1:]


def _numbers(context: HeapContext, subsegment: Subsegment, recovered: Recovered) -> Iterator[Contradiction]:
    """Contradictions of BlockSize and BlockCount."""
    struct, granule = context.layout["_HEAP_SUBSEGMENT"], context.entry_format.granule
    _, stride, count = recovered.geometry
    if subsegment.stride != stride:
        found, expected = subsegment.stride // granule, stride // granule
        place = subsegment.address + struct.offset("BlockSize")
        yield Contradiction(place, 2, "BlockSize", f"{expected}", f"{found}")
    if subsegment.count != count:
        place = subsegment.address + struct.offset("BlockCount")
        yield Contradiction(place, 2, "BlockCount", f"{count}", f"{subsegment.count}")
