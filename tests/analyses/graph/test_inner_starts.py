"""Pointers behind a header of the block that count as pointers to its start: aligned memory, new[], inner vtables."""

from __future__ import annotations

import struct
from typing import Literal

import pytest

from heapdump.analyses.graph.unreachable import Reach, classify
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.patching import poke

ENGINE, ENGINE_BYTES = 0x7FF700000000, 0x10000
ENGINE86 = 0x60000000
Arch = Literal["x64", "x86"]
FILLER = b"\x81\x92\xa3\xb4\xc5\xd6\xe7\xf8" * 64


def built(arch: Arch, size: int, offset: int, content: dict[int, bytes]) -> tuple[BuiltDump, int]:
    """A block with this content that one word on a stack points into, at an offset; the address of the block.

    `content`: offset → bytes; what stands for the block's own address is the text `start`.
    """
    heap = NtHeapBuilder(arch=arch, base=0x10000000)
    user = heap.busy(size)
    process = ProcessBuilder(arch=arch)
    base = ENGINE if arch == "x64" else ENGINE86
    process.module(base, ENGINE_BYTES, r"C:\acme\engine.dll")
    process.heap(heap.build())
    width = 8 if arch == "x64" else 4
    process.thread(7, content=(user + offset).to_bytes(width, "little"))
    own = user.to_bytes(width, "little")
    data = bytearray(FILLER[:size])
    for at, new in content.items():
        word = own if new == b"start" else new
        data[at : at + len(word)] = word
    data_section = base + ENGINE_BYTES - 0x2000
    table = (base + 0x1000).to_bytes(width, "little") * 4
    return poke(process.build(), (user, bytes(data)), (data_section, table)), user


def pointer(arch: Arch, value: int) -> bytes:
    return value.to_bytes(8 if arch == "x64" else 4, "little")


def table(arch: Arch, number: int = 0) -> bytes:
    """A pointer to a table of functions in the module."""
    base = ENGINE if arch == "x64" else ENGINE86
    return pointer(arch, base + ENGINE_BYTES - 0x2000 + number)


def cases(arch: Arch) -> dict[str, tuple[int, int, dict[int, bytes], Reach]]:
    """Case → (size, offset of the pointer, content, how the block is reached)."""
    w = 8 if arch == "x64" else 4
    gap = b"\xed" * w
    return {
        "aligned to 64": (200, 64, {64 - w: b"start"}, Reach.REACHABLE),
        "aligned to a granule": (100, 2 * w, {w: b"start"}, Reach.REACHABLE),
        "aligned, debug": (200, 64, {64 - 2 * w: b"start", 64 - w: gap}, Reach.REACHABLE),
        "array of 5": (w + 5 * 12, w, {0: pointer(arch, 5)}, Reach.REACHABLE),
        "inner table": (100, 2 * w, {0: table(arch), 2 * w: table(arch, w)}, Reach.REACHABLE),
        "no header": (200, 64, {}, Reach.POSSIBLE),
        "header of another block": (200, 64, {64 - w: pointer(arch, 0x10000000)}, Reach.POSSIBLE),
        "empty list": (100, 2 * w, {0: b"start", w: b"start"}, Reach.POSSIBLE),
        "number that divides nothing": (w + 5 * 12, w, {0: pointer(arch, 7)}, Reach.POSSIBLE),
        "number that is zero": (w + 5 * 12, w, {0: pointer(arch, 0)}, Reach.POSSIBLE),
        "inner table only": (100, 2 * w, {2 * w: table(arch)}, Reach.POSSIBLE),
        "odd place": (200, 65, {64 - w: b"start"}, Reach.POSSIBLE),
    }


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize("case", list(cases("x64")))
def test_a_pointer_behind_a_header_counts_as_one_to_the_block(open_built, arch, case):
    size, offset, content, reach = cases(arch)[case]
    dump, user = built(arch, size, offset, content)
    with open_built(dump) as snapshot:
        graph = snapshot.sweep()
        state = classify(graph).state
        (node,) = [i for i, start in enumerate(graph.start.tolist()) if start == user]
        assert Reach(int(state[node])) is reach


def test_a_header_that_is_not_in_the_dump_is_no_evidence(open_built):
    """A table of functions whose module's data are missing."""
    dump, user = built("x64", 100, 16, {0: struct.pack("<Q", ENGINE + 0x2000), 16: struct.pack("<Q", ENGINE + 0x2000)})
    with open_built(dump) as snapshot:
        graph = snapshot.sweep()
        (node,) = [i for i, start in enumerate(graph.start.tolist()) if start == user]
        assert Reach(int(classify(graph).state[node])) is Reach.POSSIBLE
