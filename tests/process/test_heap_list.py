"""The heap list of the PEB, and the ring of Windows 11 24H2."""

from __future__ import annotations

import re

import pytest

from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import add_unlisted, poke, without_memory, word

FIRST = 0x28A65B00000


def with_handles(count: int, arch: HeapArch = "x64") -> tuple[ProcessBuilder, BuiltDump]:
    process = ProcessBuilder(arch=arch, build=19041)
    for i in range(count):
        process.heap_handle(0x8000000 + i * 0x10000)
    return process, process.build()


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize("count", [0, 1, 16, 17, 40])
def test_handles_come_in_the_order_of_the_list(open_built, arch, count):
    _, built = with_handles(count, arch)
    with open_built(built) as snapshot:
        (view,) = snapshot.process.views
        assert view.heap_addresses == tuple(0x8000000 + i * 0x10000 for i in range(count))
        assert view.heap_list_complete == bool(count)


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize("length", [0, 1, 5, 19])
def test_a_list_that_is_cut_off_gives_what_is_there_and_a_note(open_built, arch, length):
    process, built = with_handles(20, arch)
    start = process.plan.heap_list + length * (8 if arch == "x64" else 4)
    with open_built(without_memory(built, (start, process.plan.heap_list + 0x4000))) as snapshot:
        (view,) = snapshot.process.views
        # the PEB names the default heap apart from the list
        assert view.heap_addresses == tuple(0x8000000 + i * 0x10000 for i in range(max(length, 1)))
        assert not view.heap_list_complete
        assert [
            note for note in snapshot.gaps if re.search(rf"list of 20 heaps .*handle {length}: .*not in the dump", note)
        ]


def test_empty_slots_and_repeated_handles_are_left_out(open_built):
    process, built = with_handles(20)
    at = process.plan.heap_list
    changed = poke(built, (at + 8, word(0)), (at + 16, word(0x8000000)), (at + 24, word(0x8050000)))
    with open_built(changed) as snapshot:
        wanted = [0x8000000, 0x8050000, *(0x8000000 + i * 0x10000 for i in range(4, 20) if i != 5)]
        assert list(snapshot.process.views[0].heap_addresses) == wanted


@pytest.mark.parametrize("count", [17, 0xFFFF, 0xFFFFFFFF])
def test_a_count_above_the_size_of_the_list_is_not_believed(open_built, count):
    process, built = with_handles(16)
    with open_built(poke(built, (process.plan.peb + 0xE8, word(count, 4)))) as snapshot:
        assert len(snapshot.process.views[0].heap_addresses) == 16


def test_hostile_counts_of_both_kinds_are_bounded(open_built, monkeypatch):
    monkeypatch.setattr("heapdump.memory.limits.MAX_HEAPS", 18)
    process, built = with_handles(20)
    with open_built(poke(built, (process.plan.peb + 0xE8, b"\xff" * 8))) as snapshot:
        assert len(snapshot.process.views[0].heap_addresses) == 18


def test_a_list_outside_of_the_dump_leaves_the_default_heap(open_built):
    process, built = with_handles(3)
    with open_built(poke(built, (process.plan.peb + 0xF0, word(0xDEAD0000)))) as snapshot:
        assert snapshot.process.views[0].heap_addresses == (0x8000000,)
        assert any(re.search("list of 3 heaps .*handle 0", note) for note in snapshot.gaps)


# --- the ring of 24H2: ntdll's data holds the head, nodes are {Flink, Blink, handle} in blocks of the process heap


class CyclicList:
    """A process of 26100 whose PEB lists one heap and whose ring lists `count`."""

    def __init__(self, count: int, arch: HeapArch = "x64", build: int = 26100) -> None:
        self.size = 8 if arch == "x64" else 4
        base = FIRST if arch == "x64" else 0x8000000
        self.process = ProcessBuilder(arch=arch, build=build)
        heap = NtHeapBuilder(arch=arch, build=build, base=base)
        heap.busy(100)
        self.nodes = [heap.busy(3 * self.size) for _ in range(count)]
        self.heaps = [base + i * 0x1000000 for i in range(count)]
        self.process.heap(heap.build())
        for i, address in enumerate(self.heaps[1:], 1):
            own = NtHeapBuilder(arch=arch, build=build, base=address, flags=0x1002, seed=i)
            own.busy(50)
            add_unlisted(self.process, own.build())
        self.head = self.process.plan.ntdll + 0x1F5000 - 0x2000 + 0x800
        self.built = poke(self.process.build(), *self.links())

    def links(self) -> list[tuple[int, bytes]]:
        chain = [self.head, *self.nodes]
        out = []
        for i, node in enumerate(chain):
            flink, blink = chain[(i + 1) % len(chain)], chain[i - 1]
            out.append((node, word(flink, self.size) + word(blink, self.size)))
            if i:
                out.append((node + 2 * self.size, word(self.heaps[i - 1], self.size)))
        return out

    def changed(self, node: int, member: int, value: int) -> BuiltDump:
        return poke(self.built, (self.nodes[node] + member * self.size, word(value, self.size)))


@pytest.mark.parametrize(("arch", "count"), [("x64", 1), ("x64", 5), ("x64", 40), ("x86", 4)])
def test_heaps_on_the_ring_of_24h2_are_listed_behind_those_of_the_peb(open_built, arch, count):
    chain = CyclicList(count, arch)
    with open_built(chain.built) as snapshot:
        (view,) = snapshot.process.views
        assert view.heap_addresses == tuple(chain.heaps)
        assert view.heap_list_complete
        assert [heap.address for heap in snapshot.heaps] == chain.heaps
        assert {heap.kind for heap in snapshot.heaps} == {"nt"}
        assert snapshot.gaps == ()


def test_a_ring_of_a_build_just_before_24h2_counts_too(open_built):
    chain = CyclicList(4, build=22621)
    with open_built(chain.built) as snapshot:
        assert snapshot.process.views[0].heap_addresses == tuple(chain.heaps)
        assert snapshot.process.views[0].heap_list_complete


def test_a_missing_ring_before_24h2_is_nothing_to_mention(open_built):
    chain = CyclicList(1, build=22621)
    with open_built(poke(chain.built, (chain.head, bytes(16)))) as snapshot:
        assert snapshot.process.views[0].heap_list_complete
        assert snapshot.gaps == ()


def test_a_missing_ring_on_24h2_is_a_note_and_the_scan_finds_the_heaps(open_built):
    chain = CyclicList(4)
    with open_built(poke(chain.built, (chain.head, bytes(16)))) as snapshot:
        (view,) = snapshot.process.views
        assert view.heap_addresses == (FIRST,)
        assert not view.heap_list_complete
        assert any("keeps its heaps on a list in ntdll's data, which was not found" in note for note in snapshot.gaps)
        assert sorted(heap.address for heap in snapshot.heaps) == chain.heaps


def test_words_that_look_like_the_head_but_do_not_link_back_are_passed_over(open_built):
    chain = CyclicList(3)
    decoys = [(chain.head - 0x200 + 8 * i, word(node)) for i, node in enumerate((*chain.nodes, FIRST, FIRST + 0x40))]
    with open_built(poke(chain.built, *decoys)) as snapshot:
        assert snapshot.process.views[0].heap_addresses == tuple(chain.heaps)


@pytest.mark.parametrize("damage", ["wrong back-link", "no memory", "to itself", "back to the first", "zero"])
def test_a_broken_ring_gives_the_heaps_before_the_break_a_note_and_the_scan(open_built, damage):
    chain = CyclicList(6)
    if damage == "wrong back-link":
        built, before = chain.changed(3, 1, 0x4141), 3
    elif damage == "no memory":
        built, before = chain.changed(3, 0, 0xDEAD0000), 4
    elif damage == "to itself":
        built, before = chain.changed(3, 0, chain.nodes[3]), 4
    elif damage == "back to the first":
        built, before = chain.changed(3, 0, chain.nodes[0]), 4
    else:
        built, before = chain.changed(3, 0, 0), 4
    with open_built(built) as snapshot:
        view = snapshot.process.views[0]
        assert view.heap_addresses[:before] == tuple(chain.heaps[:before])
        assert any(
            "the list of heaps in ntdll breaks at" in note and f"after {before} heaps" in note for note in snapshot.gaps
        )
        assert not view.heap_list_complete
        assert sorted(heap.address for heap in snapshot.heaps) == chain.heaps


def test_a_ring_without_end_is_bounded(open_built, monkeypatch):
    monkeypatch.setattr("heapdump.memory.limits.MAX_HEAPS", 3)
    chain = CyclicList(6)
    with open_built(chain.built) as snapshot:
        assert snapshot.process.views[0].heap_addresses == tuple(chain.heaps[:3])
        assert "the list of heaps in ntdll has more than 3 heaps: the rest was not read" in snapshot.gaps


def test_a_ring_with_as_many_heaps_as_the_limit_is_whole(open_built, monkeypatch):
    monkeypatch.setattr("heapdump.memory.limits.MAX_HEAPS", 6)
    with open_built(CyclicList(6).built) as snapshot:
        assert len(snapshot.process.views[0].heap_addresses) == 6
        assert snapshot.process.views[0].heap_list_complete
        assert snapshot.gaps == ()
