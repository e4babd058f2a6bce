"""Crashes at page heap blocks, verifier stops, and what is damaged around a block."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from heapdump.analyses.blocks.locate import locate
from heapdump.analyses.blocks.page_heap import page_block, page_heap_roots
from heapdump.blocks.kind import BlockKind
from heapdump.heaps.page import damage as page_damage
from heapdump.memory import limits
from heapdump.snapshot import Snapshot, open_dump
from tests.asking import ask
from tests.builders import ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.page_heap import PageHeapBuilder
from tests.heaps.nt.plans import FIXED, Generation, heap_of
from tests.patching import poke, word

PLACE, TID = 0x30000000, 99
HPA = 0x02000000
ARCHES = ["x64", "x86"]


def crashed(
    page: PageHeapBuilder, address: int, how: int, *, code: int = 0xC0000005, parameters=None, stack: bytes = b""
):
    process = ProcessBuilder(arch=page.arch, build=19041, nt_global_flag=HPA).heap(page.build())
    process.thread(TID, content=stack)
    process.dump.exception(TID, code, 0x401000, parameters if parameters is not None else (how, address))
    return process


def page_of(arch: HeapArch) -> tuple[PageHeapBuilder, int, int]:
    """(builder, address of a busy block of 100 bytes, of a freed one of 144 bytes)."""
    page = PageHeapBuilder(PLACE, arch=arch)
    allocated, freed = page.trace(0x401000), page.trace(0x402000)
    return page, page.block(100, trace=allocated), page.block(144, state="freed", trace=freed)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(("how", "verb"), [(0, "read"), (1, "write"), (8, "execution")])
def test_an_access_in_the_guard_page_is_an_overflow(open_built, arch, how, verb):
    page, busy, _ = page_of(arch)
    guard = -(-(busy + 100) // 0x1000) * 0x1000
    with open_built(crashed(page, guard + 5, how)) as snapshot:
        crash = snapshot.crash
        assert crash is not None
        assert (crash.bug, crash.block.address, crash.address) == ("heap-buffer-overflow", busy, guard + 5)
        past = guard + 5 - busy - 100
        assert crash.sentence == (
            f"{verb} {past} byte{'' if past == 1 else 's'} past the end of a 100-byte block [{busy:#x},{busy + 100:#x}) "
            f"of page heap {PLACE:#x} (guard page)"
        )
        assert not crash.is_free_stack


@pytest.mark.parametrize("arch", ARCHES)
def test_an_access_to_a_freed_block_is_a_use_after_free(open_built, arch):
    page, _, freed = page_of(arch)
    with open_built(crashed(page, freed + 16, 0)) as snapshot:
        crash = snapshot.crash
        assert crash is not None
        assert (crash.bug, crash.block.address, crash.is_free_stack) == ("heap-use-after-free", freed, True)
        assert (
            crash.sentence
            == f"read at offset +16 of a 144-byte block [{freed:#x},{freed + 144:#x}) of page heap {PLACE:#x} that was freed"
        )


def test_an_access_before_a_block_that_is_guarded_backwards_is_an_underflow(open_built):
    page = PageHeapBuilder(PLACE)
    user = page.block(64, backward=True)
    with open_built(crashed(page, user - 8, 1)) as snapshot:
        crash = snapshot.crash
        assert crash is not None
        assert (crash.bug, crash.block.address) == ("heap-buffer-underflow", user)
        assert crash.sentence.startswith("write 8 bytes before a 64-byte block")


@pytest.mark.parametrize("address", [0x10, 0x7FFE0000, PLACE + 0x380000])
def test_an_access_elsewhere_says_nothing_of_the_heap(open_built, address):
    page, _, _ = page_of("x64")
    with open_built(crashed(page, address, 1)) as snapshot:
        assert snapshot.crash is None


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("place", ["parameters", "stack", "wow64 breakpoint"])
@pytest.mark.parametrize(
    ("code", "bug"), [(7, "double-free"), (0xF, "heap-buffer-overflow"), (0x10, "heap-buffer-underflow")]
)
def test_a_verifier_stop_names_its_block(open_built, arch, place, code, bug):
    page, busy, freed = page_of(arch)
    built = page.build()
    node = next(b.node for b in built.truth.blocks if b.user == freed)
    block = node if code == 7 else busy
    values = (0x32725641, code, PLACE + 0x1000, block, 100, busy + 100)
    if place == "parameters":
        process = crashed(page, 0, 0, code=0xC0000421, parameters=values)
    else:
        pad = "I" if arch == "x64" else ""
        record = struct.pack(
            f"<II{'QQ' if arch == 'x64' else 'II'}I{pad}", 0xC0000421, 0, 0, 0x7FF0, 6, *([0] if pad else [])
        )
        record += struct.pack(f"<6{'Q' if arch == 'x64' else 'I'}", *values)
        process = crashed(
            page, 0, 0, code=0xC0000421 if place == "stack" else 0x4000001F, parameters=(), stack=bytes(32) + record
        )
    with open_built(process) as snapshot:
        crash = snapshot.crash
        assert crash is not None and crash.stop is not None
        assert (crash.bug, crash.block.address) == (bug, freed if code == 7 else busy)
        assert (crash.stop.code, crash.stop.parameters) == (code, values[2:])
        assert crash.address == (busy + 100 if code == 0xF else None)
        assert ("its stack" in crash.stop.witness) == (place != "parameters")
        assert ("Corrupted suffix pattern for heap block" in crash.sentence) == (code == 0xF)
        assert [one.finding.message.count("Verifier stop 0x") for one in snapshot.explained_findings] == [1, 0]


@pytest.mark.parametrize(
    ("code", "bug", "words"),
    [
        (8, "heap-corruption", "Corrupted heap block): 0x30380000; heap 0x30001000, block 0x30380000, block size 0x64"),
        (
            0x13, None,
            "First chance access violation for current stack trace): at 0x30001000; address 0x30001000, code address 0x30380000, "
            "exception record 0x64, context record 0x0",
        ),
        (
            0x300, "invalid-handle",
            "invalid handle); exception code 0x30001000, exception record 0x30380000, context record 0x64, handle 0x0",
        ),
    ],
)  # fmt: skip
def test_a_stop_without_a_block_that_is_known_is_told_all_the_same(open_built, code, bug, words):
    page, _, _ = page_of("x64")
    values = (0x32725641, code, PLACE + 0x1000, PLACE + 0x380000, 100, 0)
    with open_built(crashed(page, 0, 0, code=0xC0000421, parameters=values)) as snapshot:
        assert snapshot.crash is None
        (stop,) = [explained for explained in snapshot.explained_findings if explained.finding.kind == "verifier_stop"]
        assert stop.finding.message == f"Application Verifier stop {code:#x} ({words}"
        assert stop.bug == bug
        assert stop.finding.severity == "warning"
        (incident,) = snapshot.incidents
        assert incident.is_error  # the exception ended the process


def test_words_on_the_stack_that_are_no_record_are_no_stop(open_built):
    page, _, _ = page_of("x64")
    stack = struct.pack("<6Q", 0x32725641, 7, 1, 2, 3, 4)
    with open_built(crashed(page, 0, 0, code=0xC0000421, parameters=(), stack=bytes(64) + stack)) as snapshot:
        assert snapshot.crash is None


def block_at(snapshot: Snapshot, user: int):
    row = int(np.flatnonzero(snapshot.walk.table.address == user)[0])
    return snapshot.walk.table.block(row)


def detail_of(snapshot: Snapshot, user: int, kind: BlockKind = BlockKind.PAGE):
    table = snapshot.walk.table
    row = int(np.flatnonzero((table.address == user) & (table.kind == kind))[0])
    heap = snapshot.heaps[0]
    block = table.block(row)
    return page_block(snapshot.view_of(heap), heap, snapshot.page_nodes(heap), block, snapshot.page_damage(heap, block))


@pytest.mark.parametrize("arch", ARCHES)
def test_damage_around_a_block_is_found_to_the_byte(open_built, arch):
    page, busy, _ = page_of(arch)
    process = ProcessBuilder(arch=arch, build=19041, nt_global_flag=HPA).heap(page.build())
    with open_built(process) as snapshot:
        assert detail_of(snapshot, busy).damage == ()
    information = 0x40 if arch == "x64" else 0x20
    for at, new, kind, address, length in (
        (busy + 100, b"AB", "page_suffix", busy + 100, 2),
        (busy + 101, b"\x01\xd0\x02", "page_suffix", busy + 101, 3),
        (busy - 4, b"\x11\x11\x11\x11", "page_header", busy - 4, 4),
        (busy - information, b"\xaa", "page_header", busy - information, 1),
        (
            busy - information + 2 * information // 8,
            b"\x65",
            "page_header",
            busy - information + 2 * information // 8,
            1,
        ),
    ):
        with open_built(poke(process.build(), (at, new))) as snapshot:
            (damage,) = detail_of(snapshot, busy).damage
            assert (damage.kind, damage.address, len(damage.found)) == (kind, address, length), hex(at)
            assert damage.found == new[: len(damage.found)]
            assert len(damage.expected) == len(damage.found)


@pytest.mark.parametrize("arch", ARCHES)
def test_damage_in_and_behind_light_blocks(open_built, arch):
    generation = Generation(arch, 19041)
    page = PageHeapBuilder(PLACE, arch=arch, normal_heap=generation.base)
    ordinary = heap_of(generation, FIXED[0])
    live, dead = page.light(50), page.light(60, state="light freed")
    users = [ordinary.busy(len(data), data) + page.information for data in (live, dead)]
    process = ProcessBuilder(arch=arch, build=19041, nt_global_flag=HPA).heap(page.build()).heap(ordinary.build())
    built = process.build()
    with open_built(built) as snapshot:
        assert not [w for user in users for w in detail_of(snapshot, user, BlockKind.LIGHT).damage]
        (root,) = page_heap_roots(snapshot.heaps, snapshot.walk, [snapshot.page_nodes(heap) for heap in snapshot.heaps])
        assert (root.mode, root.busy_blocks, root.freed_blocks, root.busy_bytes) == ("light", 1, 1, 50)
    with open_built(poke(built, (users[0] + 52, b"!"), (users[1] + 7, b"!"))) as snapshot:
        (behind,) = detail_of(snapshot, users[0], BlockKind.LIGHT).damage
        (inside,) = detail_of(snapshot, users[1], BlockKind.LIGHT).damage
        assert (behind.kind, behind.address) == ("page_suffix", users[0] + 52)
        assert (inside.kind, inside.address) == ("page_freed_fill", users[1] + 7)


@pytest.mark.parametrize(("spoiled", "least"), [((7, 9), ""), ((7, 3000), "at least ")])
def test_damage_behind_the_first_damaged_piece_is_said(tmp_path, monkeypatch, spoiled, least):
    monkeypatch.setattr(page_damage, "_PIECE_BYTES", 1024)
    generation = Generation("x64", 19041)
    page = PageHeapBuilder(PLACE, normal_heap=generation.base)
    ordinary = heap_of(generation, FIXED[0])
    dead = page.light(4000, state="light freed")
    user = ordinary.busy(len(dead), dead) + page.information
    built = ProcessBuilder(build=19041, nt_global_flag=HPA).heap(page.build()).heap(ordinary.build()).build()
    path = tmp_path / "light.dmp"
    path.write_bytes(poke(built, *((user + at, b"!") for at in spoiled)).data)
    with open_dump(path, use_index=False) as snapshot:
        (found,) = [one for one in snapshot.damage.findings if one.kind == "page_freed_fill"]
    words = f": {least}1 byte" if least else ""
    assert found.message.endswith(f"is changed{words}") and found.address == user + 7
    assert f", {least}{found.length} byte" in ask(tmp_path, ["block", str(path), hex(user)]).stdout


def test_a_light_block_is_known_by_two_of_its_three_witnesses(open_built):
    generation = Generation("x64", 19041)
    page = PageHeapBuilder(PLACE, normal_heap=generation.base)
    ordinary = heap_of(generation, FIXED[0])
    data = page.light(50, trace=page.trace(0x401000))
    carrier = ordinary.busy(len(data), data)
    built = ProcessBuilder(build=19041, nt_global_flag=HPA).heap(page.build()).heap(ordinary.build()).build()
    for at, found in ((0, True), (0x3C, True), (8, False)):
        with open_built(poke(built, (carrier + at, word(0x12345678, 4)))) as snapshot:
            assert bool((snapshot.walk.table.kind == BlockKind.LIGHT).any()) is found
    with open_built(poke(built, (carrier, word(1, 4)), (carrier + 0x3C, word(1, 4)))) as snapshot:
        assert not (snapshot.walk.table.kind == BlockKind.LIGHT).any()
    # a pointer to no stack stays what the block says, and leads to no frames: 5 is no index of the stack database
    with open_built(poke(built, (carrier + 0x30, word(5)))) as snapshot:
        rows = np.flatnonzero(snapshot.walk.table.kind == BlockKind.LIGHT)
        assert snapshot.stacks.numbers(rows).tolist() == [5]
        assert snapshot.stacks.frames(snapshot.heaps[0], 5) == ()


def test_where_an_address_lies_around_a_block_with_pages_of_its_own(open_built):
    page = PageHeapBuilder(PLACE)
    user, backward, freed = page.block(100), page.block(80, backward=True), page.block(10, state="freed")
    blocks = {b.user: b for b in page.build().truth.blocks}
    page = PageHeapBuilder(PLACE)
    page.block(100), page.block(80, backward=True), page.block(10, state="freed")
    with open_built(ProcessBuilder(build=19041, nt_global_flag=HPA).heap(page.build())) as snapshot:
        table, space = snapshot.walk.table, snapshot.process.space

        def found(address: int) -> tuple[str, int | None]:
            located = locate(table, space, address)
            return located.relation, located.block.address if located.block else None

        assert found(user) == found(user + 99) == ("user", user)
        assert found(user + 100) == ("slack", user)
        assert found(user - 1) == found(blocks[user].virtual) == ("header", user)
        assert found(blocks[user].guard) == found(blocks[user].guard + 0xFFF) == ("guard", user)
        assert found(backward) == ("user", backward)
        assert found(backward + 80) == ("slack", backward)
        assert found(blocks[backward].guard) == ("guard", backward)
        assert found(freed) == ("free", freed)
        assert found(blocks[freed].guard) == ("guard", freed)
        assert found(PLACE + 0x10) == ("outside", None)


def test_so_many_findings_of_a_heap_are_kept_and_what_is_left_out_is_said(open_built, monkeypatch):
    page = PageHeapBuilder(PLACE)
    users = [page.block(100) for _ in range(5)]
    built = ProcessBuilder(build=19041, nt_global_flag=HPA).heap(page.build()).build()
    monkeypatch.setattr(limits, "MAX_FINDINGS", 3)
    with open_built(poke(built, *((user + 100, b"!") for user in users))) as snapshot:
        assert len(snapshot.damage.findings) == 3
        assert f"heap {PLACE:#x}: only the first 3 of at least 5 damaged places are kept" in snapshot.damage.gaps
