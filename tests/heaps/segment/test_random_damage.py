"""Random damage to the metadata of segment heaps, and fragments of them: nothing is lost silently, nothing is invented."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from heapdump.snapshot import Snapshot
from tests.builders.dump_truth import BuiltDump
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap import SegmentTruth
from tests.builders.segment_heap_layout import segment_layout
from tests.heaps.segment.test_damaged_heaps import EACH, built
from tests.patching import peek, poke, without_memory

PAGE = 0x1000


@dataclass(frozen=True)
class Member:
    """Bytes of the metadata. `has_witness`: something else in the heap tells that they are damaged.

    `same`: bits of the little-endian value that stay as they are, because they belong to another member.
    """

    what: str
    address: int
    size: int
    has_witness: bool = True
    same: int = 0


def members(generation: tuple[HeapArch, int], dump: BuiltDump, truth: SegmentTruth) -> list[Member]:
    """Members that describe blocks, as far as the layouts of the builder name them."""
    lay, pointer = segment_layout(*generation), segment_layout(*generation).pointer
    anchor = truth.address + (lay.contexts or 0)
    found = [
        Member("signature of the heap", truth.address + 2 * pointer, 4),
        Member("list of segments", anchor + lay.head, 2 * pointer),
    ]
    for start, end in truth.segments:
        unit = (end - start) // 256
        found.append(Member("links of a segment", start, 2 * pointer))
        for place in range(-(-256 * lay.descriptor // unit), 256):
            at = start + place * lay.descriptor
            if peek(dump, at, 4) == 0xCCDDCCDD:
                found += [Member("units of a range", at + lay.units, 1), Member("signature of a range", at, 4)]
    for address in truth.subsegments:
        if is_vs(generation, dump, address):
            found += [Member("size of a VS subsegment", address + lay.vs_size, 2)]
            continue
        found += [Member("header of an LFH subsegment", address, lay.bitmap, has_witness=False)]
        found += [Member("blocks of an LFH subsegment", address + lay.lfh_offsets, 4)]
        found += [Member("number of LFH blocks", address + lay.lfh_count, 2)]
        if lay.lfh_free is not None:
            size = max(1, peek(dump, address + lay.lfh_count, 2) // 4)
            found += [Member("bitmap of an LFH subsegment", address + lay.bitmap, size, has_witness=False)]
    wide = pointer == 8
    # bit 0 of the x86 word is MemoryCost, which nothing else tells
    found += [
        Member("sizes of a chunk", at + 2 * wide, 6 if wide else 4, same=0 if wide else 1) for at in truth.headers
    ]
    found += [Member("node of a large block", node, 2 * pointer) for node in truth.metadata]
    return found


def is_vs(generation: tuple[HeapArch, int], dump: BuiltDump, address: int) -> bool:
    lay = segment_layout(*generation)
    size = peek(dump, address + lay.vs_size, 2)
    return size > 0 and (size ^ 0x2BED ^ peek(dump, address + lay.vs_mark, 2)) & 0x7FFF == 0


def busy_bits(bitmap: bytes) -> int:
    """Every other bit."""
    return sum((byte & 0x55).bit_count() for byte in bitmap)


def busy_blocks(snapshot: Snapshot) -> dict[int, tuple[int, str]]:
    """User address → (requested bytes, trust)."""
    table = snapshot.walk.table
    rows = np.flatnonzero(table.is_busy & ~table.is_internal)
    return {block.address: (block.size, block.trust.value) for block in table.blocks(rows)}


def is_silent(snapshot: Snapshot) -> bool:
    """No error, and nothing that says what is missing: the command line would exit with 0."""
    errors = any(finding.is_error for finding in snapshot.damage.findings)
    return (
        not errors
        and not snapshot.walk.gaps
        and all(heap.is_fully_walked and not heap.notes for heap in snapshot.heaps)
    )


@pytest.mark.property
@EACH
@given(data=st.data())
def test_damage_to_metadata_is_never_silent_and_invents_no_block(open_built, generation, data):
    dump, _, truth = built(generation)
    kinds: dict[str, list[Member]] = {}
    for member in members(generation, dump, truth):
        kinds.setdefault(member.what, []).append(member)
    member = data.draw(st.sampled_from(kinds[data.draw(st.sampled_from(sorted(kinds)))]))
    old = peek(dump, member.address, member.size).to_bytes(member.size, "little")
    whole = st.binary(min_size=member.size, max_size=member.size)
    same = st.sampled_from([b"\0", b"A", b"\xff"]).map(lambda byte: byte * member.size)
    bit = st.integers(0, 8 * member.size - 1).map(
        lambda i: (int.from_bytes(old, "little") ^ 1 << i).to_bytes(member.size, "little")
    )
    drawn = int.from_bytes(data.draw(st.one_of(whole, same, bit)), "little")
    value = drawn & ~member.same | int.from_bytes(old, "little") & member.same
    new = value.to_bytes(member.size, "little")
    # of a bitmap the number of busy blocks has a witness
    assume(not member.what.startswith("bitmap") or busy_bits(new) != busy_bits(old))
    with open_built(poke(dump, (member.address, new))) as snapshot:
        found = busy_blocks(snapshot)
        lost = {address for address in truth.busy if address not in found}
        changed = {a for a in set(truth.busy) & set(found) if found[a][0] != truth.busy[a][0]}
        assert not is_silent(snapshot) or (not lost and not changed)
        assert {address for address in found if address not in truth.busy and found[address][1] == "exact"} == set()
        assert {address for address in changed if found[address][1] == "exact"} == set()
        if new != old and member.has_witness and member.what != "node of a large block":
            assert any(finding.is_error for finding in snapshot.damage.findings) or not is_silent(snapshot)


@pytest.mark.property
@EACH
@given(data=st.data())
def test_a_fragment_of_a_heap_has_no_error_and_no_invented_block(open_built, generation, data):
    """Pages, or parts of pages, are not in the dump: absent bytes are no evidence."""
    dump, _, truth = built(generation)
    start, size = data.draw(st.sampled_from(dump.truth.ranges))
    pieces = data.draw(
        st.lists(
            st.tuples(st.integers(0, size - 1), st.sampled_from([1, 3, 24, 64, 1000, PAGE, 5 * PAGE])),
            min_size=1,
            max_size=12,
        )
    )
    cuts = [(start + offset, min(start + offset + length, start + size)) for offset, length in pieces]
    with open_built(without_memory(dump, *cuts)) as snapshot:
        found = busy_blocks(snapshot)
        assert [finding.message for finding in snapshot.damage.findings if finding.is_error] == []
        exact = {address: block[0] for address, block in found.items() if block[1] == "exact"}
        assert exact.items() <= {address: block[0] for address, block in truth.busy.items()}.items()
        assert not is_silent(snapshot) or not set(truth.busy) - set(found)


@pytest.mark.parametrize(
    ("generation", "place", "length"),
    [
        (("x64", 16299), "heap+0x100", 64),  # the second context: another build's layout seemed to fit better
        (("x86", 19041), "heap+0xc8", 64),  # the counter of segments
        (("x64", 26100), "lfh+0x48", 64),  # bits and a link of the list of freed blocks at once
        (("x64", 16299), "range+0x8", 64),  # the signature of a descriptor whose flags are there
        (("x64", 19041), "lfh+0x22", 1),  # one byte of the number of blocks
        (("x64", 14393), "lfh+0x34", 64),  # bits
        (("x64", 22000), "node+0x1b", 1),  # the middle of a node of the tree of large blocks
        (("x64", 22000), "chunk+0x2", 3),  # the size of a chunk
        (("x86", 19041), "chunk+0x1", 1),
    ],
    ids=["context", "counter", "bits and links", "descriptor", "count", "bits", "node", "chunk", "chunk of x86"],
)
def test_a_part_of_a_header_that_is_not_in_the_dump_is_no_evidence(open_built, generation, place, length):
    dump, _, truth = built(generation)
    where, _, offset = place.partition("+")
    starts = [truth.address] if where == "heap" else [a for a in truth.subsegments if not is_vs(generation, dump, a)]
    if where == "range":
        starts = [start for start, _ in dump.truth.ranges]
    starts = {"node": list(truth.metadata), "chunk": list(truth.headers[10:40])}.get(where, starts)
    for start in starts:
        cut = (start + int(offset, 16), start + int(offset, 16) + length)
        with open_built(without_memory(dump, cut)) as snapshot:
            assert [finding.message for finding in snapshot.damage.findings if finding.is_error] == []
            exact = {address: size for address, (size, trust) in busy_blocks(snapshot).items() if trust == "exact"}
            assert exact.items() <= {address: block[0] for address, block in truth.busy.items()}.items()


@pytest.mark.parametrize(("generation", "word"), [(("x64", 22000), b'\x0e"\x03@'), (("x86", 19041), b'w"\x02@')])
def test_the_key_of_a_damaged_subsegment_does_not_win(open_built, generation, word):
    """Its own key makes most of the others possible; theirs makes them consistent."""
    dump, _, truth = built(generation)
    lay = segment_layout(*generation)
    sub = next(address for address in truth.subsegments if not is_vs(generation, dump, address))
    with open_built(poke(dump, (sub + lay.lfh_offsets, word))) as snapshot:
        assert [finding.address & -PAGE for finding in snapshot.walk.findings] == [sub]
        found = busy_blocks(snapshot)
        assert {address for address, (_, trust) in found.items() if trust == "exact"} <= set(truth.busy)
