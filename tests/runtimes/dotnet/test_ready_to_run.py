"""Precompiled images: methods, funclets, instantiations of generics and folded methods, by tables laid out by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from heapdump.runtimes.dotnet.instances import Instance
from heapdump.runtimes.dotnet.pe import mapped_image
from heapdump.runtimes.dotnet.ready_to_run import CompiledMethod, ReadyToRun, ready_to_run
from tests.builders import DumpBuilder
from tests.builders.clr_metadata import MetadataBuilder, assembly_image

BASE = 0x70000000
HEADER, FUNCTIONS, METHODS, INSTANCES = 0x2000, 0x2100, 0x2400, 0x2600
STEP = 0x40


def number(value: int) -> bytes:
    """A native unsigned number in two bytes."""
    return struct.pack("<H", value << 2 | 1)


def tree(entries: Mapping[int, int], bit: int = 8) -> bytes:
    """A block of a NativeArray: index → function."""
    if not bit:
        (function,) = entries.values()
        return number(function << 1)
    low = {i: f for i, f in entries.items() if not i & bit}
    high = {i: f for i, f in entries.items() if i & bit}
    left = tree(low, bit >> 1) if low else b""
    right = tree(high, bit >> 1) if high else b""
    return number((2 + len(left)) << 2 | bool(high) << 1 | bool(low)) + left + right


def array(entries: Mapping[int, int]) -> bytes:
    """A NativeArray of at most 16 elements, its block's offset in one byte."""
    return number(16 << 2) + b"\x01" + tree(entries)


def table(blobs: list[bytes]) -> bytes:
    """A NativeHashtable with one bucket."""
    entries, data = b"", b""
    first = 3 + 3 * len(blobs)
    for i, blob in enumerate(blobs):
        place = 3 + 3 * i + 1
        entries += b"\x00" + struct.pack("<h", (first + len(data) - place) << 2 | 1)
        data += blob
    return bytes([0, 2, 2 + len(entries)]) + entries + data


@pytest.fixture
def image() -> tuple[MetadataBuilder, bytes]:
    """Run, Stop, Fold, Same (one code for both), and List<T>.Add with two instantiations, a handler behind Run."""
    metadata = MetadataBuilder("Acme.Core")
    metadata.type("", "<Module>")
    metadata.type("Acme", "Engine", ["Run", "Stop", "Fold", "Same"])
    metadata.type("Acme", "List`1", ["Add", "Map"], parameters=1)
    rows = b"".join(struct.pack("<III", 0x3000 + STEP * i, 0x3000 + STEP * (i + 1), 0x2080) for i in range(6))
    methods = array({0: 0, 1: 2, 2: 5, 3: 5})
    string = bytes([0x40, 0x15, 0x12, 0x0C, 1, 0x0E, 5]) + number(3 << 1)  # List<String>.Add
    canon = bytes([0x44, 0x15, 0x12, 0x0C, 1, 0x3E, 6, 1, 0x08]) + number(4 << 1)  # List<__Canon>.Map<Int32>
    hashed = table([string, canon])
    header = b"RTR\0" + struct.pack("<HHII", 5, 4, 0, 3)
    header += struct.pack("<9I", 102, FUNCTIONS, len(rows), 103, METHODS, len(methods), 109, INSTANCES, len(hashed))
    native = {HEADER: header, FUNCTIONS: rows, METHODS: methods, INSTANCES: hashed}
    return metadata, assembly_image(metadata.build(), wide=True, native=native)


@pytest.fixture
def code(image, open_built):
    _, data = image
    built = DumpBuilder().region(BASE, len(data), type="MEM_IMAGE").memory(BASE, data).build()
    with open_built(built) as snapshot:
        found = mapped_image(snapshot.process.space, BASE)
        assert found is not None
        compiled = ready_to_run(found)
        assert compiled is not None
        yield compiled


def at(code: ReadyToRun, function: int) -> CompiledMethod | None:
    return code.method_at(0x3000 + STEP * function + 5)


def test_methods_are_found_by_their_functions(code: ReadyToRun):
    assert at(code, 0) == CompiledMethod(0x06000001, 0x3000, False)
    assert at(code, 1) == CompiledMethod(0x06000001, 0x3000, True)  # a handler of Run
    assert at(code, 2) == CompiledMethod(0x06000002, 0x3000 + 2 * STEP, False)
    assert code.method_at(0x3000 + 6 * STEP) is None
    assert code.method_at(0x2FFF) is None


def test_an_instantiation_below_the_highest_method_is_no_handler_of_the_method_before(code: ReadyToRun):
    """3.1.23: System.Runtime.Extensions has functions 108 and 110 of TaskToApm.End<T> below the highest method, 387."""
    string = Instance(0x06000005, "Acme.List<System.String>", "")
    assert at(code, 3) == CompiledMethod(0x06000005, 0x3000 + 3 * STEP, False, string)
    canon = Instance(0x06000006, "Acme.List<System.__Canon>", "<System.Int32>")
    assert at(code, 4) == CompiledMethod(0x06000006, 0x3000 + 4 * STEP, False, canon)


def test_folded_methods_are_said_to_share_their_code(code: ReadyToRun):
    """3.1.23: one stub is FindClose, FreeLibrary, CloseHandle and FreeEnvironmentStrings of Interop+Kernel32."""
    assert at(code, 5) == CompiledMethod(0x06000003, 0x3000 + 5 * STEP, False, None, True)


@pytest.mark.parametrize("cut", range(1, 0x40, 3))
def test_damaged_tables_are_survived(image, cut: int, open_built):
    _, data = image
    for start in (METHODS, INSTANCES, FUNCTIONS, HEADER):
        damaged = bytearray(data)
        damaged[start + cut : start + cut + 2] = b"\xff\xff"
        with open_built(DumpBuilder().memory(BASE, bytes(damaged)).build()) as snapshot:
            found = mapped_image(snapshot.process.space, BASE)
            compiled = ready_to_run(found) if found else None
            if compiled is not None:
                for function in range(7):
                    at(compiled, function)
