"""Objects without type information, told by their vtables."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from heapdump.analyses.types.block_starts import BlockData
from heapdump.analyses.types.block_types import types_of, view_by_heap
from heapdump.analyses.types.content import content_of
from tests.analyses.types.test_block_types import ARCHES, BASE, Blocks, labels
from tests.builders import NtHeapBuilder, ProcessBuilder, clr_metadata
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke, without_stream

CODE, TABLE, GENERATED = 0x2000, 0x1100, 0x100000


def with_table(arch: HeapArch, at: int, functions: list[int]) -> tuple[ProcessBuilder, int]:
    """(a process with an object whose first word is `at`, the object); `functions` are what lies there."""
    blocks = Blocks(arch)
    thing = blocks.add(blocks.words(BASE[arch] + at, 1, 2))
    process = (
        ProcessBuilder(arch=arch, build=19041)
        .heap(blocks.heap.build())
        .module(BASE[arch], 0x8000, r"C:\acme\camera.dll")
    )
    data = bytearray(0x1000)
    data[TABLE - 0x1000 : TABLE - 0x1000 + len(functions) * blocks.pointer] = blocks.words(*functions)
    process.memory(BASE[arch] + 0x1000, bytes(data))
    return process, thing


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("at", [TABLE, 0x900], ids=["beside code", "read only"])
def test_an_object_without_type_information_is_told_by_its_vtable(open_built, arch, at):
    functions = [BASE[arch] + CODE, BASE[arch] + CODE + 0x31, BASE[arch] + CODE]
    process, thing = with_table(arch, at, [])
    words = Blocks(arch).words(*functions)
    with open_built(poke(process.build(), (BASE[arch] + at, words))) as snapshot:
        assert labels(snapshot, [thing]) == [f"vtable camera.dll+{at:#x}"]
        table = snapshot.walk.table
        found = content_of(snapshot.process, snapshot.process.views[0], table, table.at(thing)[0])
        assert (found.guess, found.class_name) == (f"vtable camera.dll+{at:#x}", None)


def test_without_a_memory_map_no_vtable_is_told(open_built):
    base = BASE["x64"]
    process, thing = with_table("x64", TABLE, [base + CODE] * 3)
    with open_built(without_stream(process.build(), 16)) as snapshot:
        assert labels(snapshot, [thing]) == ["pointer into a module"]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(
    ("at", "functions"),
    [
        (TABLE, [CODE, CODE, 0x7800]), (TABLE, [CODE, CODE, 0x800]), (TABLE, [CODE, CODE, 0x8000]), (TABLE, [CODE, CODE, GENERATED]),
        (TABLE, [0x7800, CODE, CODE]), (TABLE + 2, [CODE, CODE, CODE]), (TABLE, [CODE, CODE]), (0x7800, [CODE, CODE, CODE]),
    ],
    ids=["data", "header", "outside", "generated code", "data first", "askew", "too few", "writable"],
)  # fmt: skip
def test_what_does_not_lead_to_code_of_images_is_no_vtable(open_built, arch, at, functions):
    base = BASE[arch]
    process, thing = with_table(arch, at, [])
    process.region(base + GENERATED, 0x1000, protect=0x40)
    words = Blocks(arch).words(*(base + function for function in functions))
    with open_built(poke(process.build(), (base + at, words))) as snapshot:
        assert labels(snapshot, [thing]) == ["pointer into a module"]


def test_one_class_in_two_heaps_is_one_group(open_built):
    base = BASE["x64"]
    process, thing = with_table("x64", TABLE, [base + CODE] * 3)
    other = NtHeapBuilder(base=0x30000000000)
    second = other.busy(24, (base + TABLE).to_bytes(8, "little"))
    with open_built(process.heap(other.build())) as snapshot:
        table = snapshot.walk.table
        rows = np.array([table.at(address)[0] for address in (thing, second)])
        found = types_of(
            snapshot.process, view_by_heap(snapshot.process, snapshot.heaps), BlockData(table), rows, by_class=True
        )
        assert found.numbers.tolist() == [0, 0]
        assert [trust.value for trust in found.trusts] == ["guess"]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(
    ("exported", "label"),
    [
        ({"??_7Foo@ns@@6B@": TABLE}, "class ns::Foo (camera.dll)"),
        ({"CreateFrame": CODE + 0x31}, f"vtable camera.dll+{TABLE:#x} (CreateFrame)"),
        ({"CreateFrame": CODE + 0x30, "Other": TABLE - 8}, f"vtable camera.dll+{TABLE:#x}"),
        ({"??_7": TABLE}, f"vtable camera.dll+{TABLE:#x}"),
    ],
)
def test_exports_name_a_vtable_or_a_function_in_it(open_built, arch, exported, label):
    base, table = BASE[arch], 0x5000
    process, thing = with_table(arch, TABLE, [base + CODE, base + CODE + 0x31, base + CODE])
    data = clr_metadata.exports(table, exported)
    process.memory(base + table, data.ljust(0x1000, b"\0"))
    directory = base + 0x98 + (112 if arch == "x64" else 96)
    with open_built(poke(process.build(), (directory, struct.pack("<2I", table, len(data))))) as snapshot:
        assert labels(snapshot, [thing]) == [label]
