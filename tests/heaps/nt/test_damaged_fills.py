"""Free blocks whose fill was overwritten: how many bytes of it a finding says."""

from __future__ import annotations

import pytest

from tests.asking import ask
from tests.builders import ProcessBuilder
from tests.heaps.nt.plans import FIXED, Generation, heap_of
from tests.patching import poke

FREE_BYTES = 0x4000
FLAGS, FILL = 5, 0x04
"""Windows XP: place of the flags in a header; the flag of an entry with a fill."""


@pytest.mark.parametrize(
    ("start", "count", "length", "words"),
    [
        (0x100, 0x20, 0x20, ""),
        (0x100, 0x2000, 0x1000, ": at least 4,096 bytes"),
        (0x100, 0x1000, 0x1000, ": at least 4,096 bytes"),
        (FREE_BYTES - 0x1000, 0x1000, 0x1000, ""),
    ],
)
def test_a_fill_that_is_overwritten_farther_than_compared_has_at_least_so_many_bytes(
    tmp_path, open_built, start, count, length, words
):
    heap = heap_of(Generation("x86", 2600), FIXED[0])
    heap.busy(100)
    entry = heap.free(FREE_BYTES // 8)
    heap.busy(100)
    built = ProcessBuilder(arch="x86", build=2600).heap(heap.build()).build()
    body = b"\xee\xfe" * (FREE_BYTES // 2 - 8)
    with open_built(built) as snapshot:
        (flags,) = snapshot.process.space.try_read(entry + FLAGS, 1) or b""
    marked = poke(built, (entry + FLAGS, bytes([flags | FILL])), (entry + 16, body), (entry + start, b"!" * count))
    with open_built(marked) as snapshot:
        (found,) = [one for one in snapshot.damage.findings if one.kind == "free_fill"]
    assert (found.address, found.length) == (entry + start, length)
    assert found.message.endswith(f"was written to{words}")
    path = tmp_path / "fill.dmp"
    path.write_bytes(marked.data)
    for _ in range(2):  # found, and from the index
        page = ask(tmp_path / "index", ["check", str(path)]).stdout
        assert ("at least 4,096 bytes" in " ".join(page.split())) is bool(words)
