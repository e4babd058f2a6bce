"""What is no root, although it is writable and names blocks: what allocators keep for themselves."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.analyses.graph.unreachable import Reach
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import poke, word

MODULE, ARENA = 0x68000000, 0x30000000
SIGNATURE = bytes.fromhex("eeddeedd")


def reach(open_built, process: ProcessBuilder, heap: NtHeapBuilder, *changes: tuple[int, int]) -> str:
    """How the one block of the heap is reached when words are written to memory."""
    block = heap.busy(64)
    built = process.heap(heap.build()).build()
    with open_built(poke(built, *((at, word(block + to)) for at, to in changes))) as snapshot:
        (node,) = np.flatnonzero(snapshot.graph.start == block).tolist()
        return Reach(int(snapshot.reached.state[node])).name


@pytest.mark.parametrize(
    ("name", "kind"),
    [("verifier.dll", "DIRECT"), ("VrfCore.dll", "DIRECT"), ("verified.dll", "REACHABLE"), ("camera.dll", "REACHABLE")],
)
def test_data_of_application_verifiers_modules_holds_nothing(open_built, name, kind):
    process = ProcessBuilder().module(MODULE, 0x8000, rf"C:\Windows\System32\{name}")
    assert reach(open_built, process, NtHeapBuilder(base=0x20000000000), (MODULE + 0x7000, 0)) == kind


@pytest.mark.parametrize(
    ("signature", "kind"), [(SIGNATURE, "DIRECT"), (b"data", "POSSIBLE")], ids=["records", "arena"]
)
def test_the_heap_of_records_of_segment_heaps_holds_nothing(open_built, signature, kind):
    process = ProcessBuilder().region(ARENA, 0x2000)
    process.memory(ARENA, bytes(0x10) + signature + bytes(0x2000 - 0x14))
    assert reach(open_built, process, NtHeapBuilder(base=0x20000000000), (ARENA + 0x1000, 0)) == kind
