"""Writes over the header between two blocks: which block did it, and where the bytes do not tell."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from heapdump.analyses.damage.explained import ExplainedFinding
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.patching import peek, poke, word

HEAP = 0x20000000000


@dataclass(frozen=True)
class Pair:
    """A dump with two neighbouring blocks; the requested bytes of the first end `gap` bytes before the header word."""

    built: BuiltDump
    first: int
    end: int
    header: int
    second: int
    elsewhere: int


def pair(gap: int = 0, content: bytes = b"") -> Pair:
    """Two busy blocks; `content` lies at the start of the second."""
    builder = NtHeapBuilder(base=HEAP)
    elsewhere = builder.busy(200)
    first = builder.busy(120 - gap)
    second = builder.busy(64, content)
    builder.busy(40)
    built = ProcessBuilder().heap(builder.build()).build()
    end = first + 120 - gap
    assert second - 8 - end == gap
    return Pair(built, first, end, second - 8, second, elsewhere)


def damage(snapshot: Snapshot) -> ExplainedFinding:
    (incident,) = snapshot.incidents
    assert incident.is_error
    return incident.leading


@pytest.mark.parametrize(
    ("gap", "data"),
    [
        (0, b"\0"), (0, b"12"), (0, b"connection"), (5, b"a string that is too long"), (3, "wide text".encode("utf-16-le")),
        (6, bytes(20)), (7, b"\xff" * 15), (4, b"long\0"),
    ],
)  # fmt: skip
def test_a_write_that_runs_on_from_the_end_of_a_block_is_its_overrun(open_built, gap, data):
    made = pair(gap)
    with open_built(poke(made.built, (made.end, data))) as snapshot:
        found = damage(snapshot)
        assert (found.bug, found.culprit and found.culprit.address) == ("heap-buffer-overflow", made.first)
        assert snapshot.incidents[0].address == made.end


def test_the_first_half_of_a_header_that_is_whole_speaks_for_an_underrun(open_built):
    made = pair(4)
    count = peek(made.built, made.header + 4, 2)
    with open_built(poke(made.built, (made.header + 4, word(count - 1, 2)))) as snapshot:
        found = damage(snapshot)
        assert (found.bug, found.culprit and found.culprit.address) == ("heap-buffer-underflow", made.second)


@pytest.mark.parametrize("data", [word(0x10, 4) + word(0x20, 4), word(HEAP + 0x850)])
def test_bytes_before_the_header_that_do_not_look_like_the_damage_speak_for_an_underrun(open_built, data):
    made = pair(6, b"its own text")
    with open_built(poke(made.built, (made.header, data))) as snapshot:
        found = damage(snapshot)
        assert (found.bug, found.culprit and found.culprit.address) == ("heap-buffer-underflow", made.second)
        assert found.judgement.start == made.header


def test_one_word_exactly_between_two_blocks_may_be_either_ones_and_none_is_called_the_culprit(open_built):
    made = pair(0, b"its own text")
    with open_built(poke(made.built, (made.header, word(made.elsewhere)))) as snapshot:
        found = damage(snapshot)
        assert (found.bug, found.culprit) == ("heap-corruption", None)
        assert [one.block and one.block.address for one in found.candidates] == [made.first, made.second]


def test_a_pointer_to_the_block_before_is_its_own_field_past_its_end(open_built):
    made = pair(0)
    with open_built(poke(made.built, (made.header, word(made.first)))) as snapshot:
        found = damage(snapshot)
        assert (found.bug, found.culprit and found.culprit.address) == ("heap-buffer-overflow", made.first)


def test_pointers_on_both_sides_of_the_start_of_a_block_speak_for_an_overrun(open_built):
    made = pair(6)
    run = word(made.elsewhere) + word(made.elsewhere + 16)
    with open_built(poke(made.built, (made.header, run))) as snapshot:
        found = damage(snapshot)
        assert (found.bug, found.culprit and found.culprit.address) == ("heap-buffer-overflow", made.first)


@pytest.mark.parametrize("is_continued", [False, True])
def test_a_free_block_is_blamed_only_where_its_own_bytes_look_like_the_damage(open_built, is_continued):
    builder = NtHeapBuilder(base=HEAP)
    builder.busy(40)
    builder.free(8)
    own = builder.busy(64, b"its own")
    builder.busy(40)
    built = ProcessBuilder().heap(builder.build()).build()
    start = own - 8 - (16 if is_continued else 0)
    with open_built(poke(built, (start, b"Q" * (own - start)))) as snapshot:
        found = damage(snapshot)
        if is_continued:
            assert (found.bug, found.culprit and found.culprit.state) == ("heap-use-after-free", "free")
        else:
            assert (found.bug, found.culprit) == ("heap-corruption", None)
            assert found.candidates[0].block == found.block


def test_one_run_over_several_headers_is_one_incident(open_built):
    builder = NtHeapBuilder(base=HEAP)
    first = builder.busy(40)
    for _ in range(4):
        last = builder.busy(24)
    builder.busy(40)
    built = ProcessBuilder().heap(builder.build()).build()
    with open_built(poke(built, (first + 40, b"\xaa" * (last - first - 40)))) as snapshot:
        (incident,) = snapshot.incidents
        assert (incident.bug, incident.culprit and incident.culprit.address) == ("heap-buffer-overflow", first)
        assert incident.address == first + 40


def test_overruns_of_two_blocks_are_two_incidents(open_built):
    builder = NtHeapBuilder(base=HEAP)
    blocks = [builder.busy(40) for _ in range(12)]
    built = ProcessBuilder().heap(builder.build()).build()
    with open_built(poke(built, (blocks[2] + 40, b"ZZZZ"), (blocks[8] + 40, b"ZZZZ"))) as snapshot:
        assert [one.address for one in snapshot.incidents] == [blocks[2] + 40, blocks[8] + 40]
        assert [one.number for one in snapshot.incidents] == [1, 2]


def test_the_header_of_a_large_block_can_only_be_damaged_by_its_own_underrun(open_built):
    builder = NtHeapBuilder(base=HEAP)
    builder.busy(40)
    block = builder.virtual(0x30000000, 0x80000)
    built = ProcessBuilder().heap(builder.build()).build()
    with open_built(poke(built, (block - 8, b"DEADBEEF"))) as snapshot:
        found = damage(snapshot)
        assert (found.bug, found.culprit and found.culprit.address) == ("heap-buffer-underflow", block)
