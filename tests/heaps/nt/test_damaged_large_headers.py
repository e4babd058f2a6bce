"""Damage to the header of a large block: an error, and the block stays where it is, as large as its memory allows."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump
from tests.heaps.nt.plans import REPRESENTATIVES, Generation, heap_of, process_of
from tests.patching import peek, poke

EACH = pytest.mark.parametrize(
    "generation", [g for g in REPRESENTATIVES if str(g) in ("x64-7601", "x86-19041", "x64-19041", "x64-26100")], ids=str
)
SIZES = (0x80000, 0x81234, 0x90001)


class LargeBlocks:
    """A heap with some large blocks."""

    def __init__(self, generation: Generation) -> None:
        heap = heap_of(generation, [("busy", 100), *(("virtual", size) for size in SIZES)]).build()
        self.built = process_of(generation, heap).build()
        self.granule = 16 if generation.arch == "x64" else 8
        self.nodes = [block.list_entry for block in heap.truth.large]
        header = 0x40 if self.granule == 16 else 0x20
        self.users = [node + header for node in self.nodes]
        self.most = [block.commit_bytes - header for block in heap.truth.large]


def rows(snapshot: Snapshot) -> list[tuple[int, int, str]]:
    """(user address, size, trust) of the large blocks."""
    table = snapshot.walk.table
    found = table.blocks(np.flatnonzero(table.kind == BlockKind.VIRTUAL))
    return [(block.address, block.size, block.trust.value) for block in found]


def sound(large: LargeBlocks, *damaged: int) -> list[tuple[int, int, str]]:
    """The rows of a heap in which the headers of these blocks are damaged."""
    return [
        (user, large.most[i] if i in damaged else SIZES[i], "guess" if i in damaged else "exact")
        for i, user in enumerate(large.users)
    ]


def changed(built: BuiltDump, address: int, mask: int) -> BuiltDump:
    """The dump with one byte changed."""
    return poke(built, (address, bytes([peek(built, address, 1) ^ mask])))


@EACH
@pytest.mark.parametrize("byte", range(8))
@pytest.mark.parametrize("mask", [0x01, 0x02, 0x80, 0xFF])
def test_a_changed_byte_is_an_error_and_leaves_a_guess(open_built, generation, byte, mask):
    large = LargeBlocks(generation)
    place = large.users[1] - 8
    with open_built(changed(large.built, place + byte, mask)) as snapshot:
        (found,) = snapshot.explained_findings
        assert (found.finding.kind, found.finding.severity, found.finding.address) == ("entry_header", "error", place)
        assert rows(snapshot) == sound(large, 1)


@EACH
@pytest.mark.parametrize("new", [b"A" * 8, bytes(8), b"\xff" * 8], ids=["letters", "zeros", "ones"])
def test_destroyed_headers_lose_no_block(open_built, generation, new):
    large = LargeBlocks(generation)
    with open_built(poke(large.built, *((user - 8, new) for user in large.users))) as snapshot:
        assert [f.finding.address for f in snapshot.explained_findings] == [user - 8 for user in large.users]
        assert rows(snapshot) == sound(large, 0, 1, 2)


@EACH
def test_user_data_that_look_like_a_second_header_are_none(open_built, generation):
    large = LargeBlocks(generation)
    place = large.users[1] + 2 * large.granule - 2
    with open_built(poke(large.built, (place, b"\x02\x05"))) as snapshot:
        assert not snapshot.explained_findings
        assert rows(snapshot) == sound(large)


@pytest.mark.parametrize("member", [2, 3, 6, 7])
def test_before_vista_members_that_are_zero_are_checked(open_built, member):
    large = LargeBlocks(Generation("x86", 2600))
    place = large.users[1] - 8
    with open_built(changed(large.built, place + member, 0x41)) as snapshot:
        (found,) = snapshot.explained_findings
        assert (found.finding.kind, found.finding.address) == ("entry_header", place)
        assert rows(snapshot) == sound(large, 1)
