"""Images of NGEN: hot, other and cold code, funclets, by tables laid out by hand (corcompile.h, ceeload.h)."""

from __future__ import annotations

import random
import struct
from typing import Literal

import pytest

from heapdump.runtimes.dotnet.native_image import NativeImage, NativeMethod, native_image
from heapdump.runtimes.dotnet.pe import mapped_image
from heapdump.runtimes.dotnet.ready_to_run import ready_to_run
from tests.builders import DumpBuilder
from tests.builders.clr_metadata import MetadataBuilder, assembly_image
from tests.conftest import OpenBuilt

BASE = 0x31000000
HEADER, MANAGER, MODULE, LAYOUT = 0x2000, 0x2100, 0x2180, 0x2280
HOT_TABLE, OTHER_TABLE, COLD_TABLE, HOT_DESCS, OTHER_DESCS, COLD_MAP = 0x2400, 0x2500, 0x2600, 0x2700, 0x2740, 0x2780
HOT, OTHER, COLD = (0x3000, 0x80), (0x3100, 0xC0), (0x3200, 0x60)
STEP = 0x20


def functions(start: int, count: int, unwind: list[int], *, wide: bool) -> bytes:
    """RUNTIME_FUNCTIONs of 0x20 bytes each."""
    rows = ((start + STEP * i, *((start + STEP * i + 0x1C,) if wide else ()), unwind[i]) for i in range(count))
    return b"".join(struct.pack(f"<{len(row)}I", *row) for row in rows)


def image(*, wide: bool) -> bytes:
    """Hot: A, its funclet, B, C. Other: D to I. Cold: a part of B, one that goes on, a part of E."""
    p: Literal["Q", "I"] = "Q" if wide else "I"
    width = 12 if wide else 8
    mains = [HOT_TABLE + 2 * width, 0, OTHER_TABLE + width]
    header = b"NGE\0" + struct.pack("<HH", 1, 0) + bytes(56) + struct.pack("<4I", MODULE, 0x80, MANAGER, 0x2C)
    manager = struct.pack("<6I", *HOT, *OTHER, *COLD) + bytes(20)
    module = struct.pack(f"<4{p}", 7, BASE + 0x2400, BASE + LAYOUT, BASE)
    layout = struct.pack(f"<6{p}", *(word for rva, size in (HOT, OTHER, COLD) for word in (BASE + rva, size)))
    layout += struct.pack(f"<3{p}", *(BASE + table for table in (HOT_TABLE, OTHER_TABLE, COLD_TABLE)))
    layout += struct.pack("<3I", 4, 6, 3) + bytes(4 if wide else 0)
    layout += struct.pack(f"<4{p}", BASE + HOT_DESCS, BASE + OTHER_DESCS, 0, 0) + bytes(8)
    layout += struct.pack(f"<{p}", BASE + COLD_MAP)
    unwinds = [0x2080, 0, 0x2080] if wide else [main | 0x80000000 if main else 0 for main in mains]
    native = {
        HEADER: header, MANAGER: manager, MODULE: module, LAYOUT: layout,
        HOT_TABLE: functions(HOT[0], 4, [0x2080] * 4, wide=wide),
        OTHER_TABLE: functions(OTHER[0], 6, [0x2080] * 6, wide=wide),
        COLD_TABLE: functions(COLD[0], 3, unwinds, wide=wide),
        HOT_DESCS: struct.pack("<4I", 0x1101, 0, 0x1200, 0x1300),
        OTHER_DESCS: struct.pack("<6I", *range(0x1400, 0x1A00, 0x100)),
        COLD_MAP: b"".join(struct.pack("<II", main, 0x1C) for main in mains) if wide else struct.pack("<3I", 1, 1, 1),
    }  # fmt: skip
    return assembly_image(MetadataBuilder("Acme.Core").build(), wide=wide, native=native)


@pytest.fixture(params=[False, True], ids=["x86", "x64"])
def wide(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def opened(data: bytes, open_built: OpenBuilt, *, wide: bool) -> NativeImage | None:
    made = DumpBuilder(arch="x64" if wide else "x86").region(BASE, len(data), type="MEM_IMAGE").memory(BASE, data)
    with open_built(made.build()) as snapshot:
        found = mapped_image(snapshot.process.space, BASE)
        assert found is None or ready_to_run(found) is None
        return native_image(found) if found else None


def test_a_method_is_found_by_its_function(wide: bool, open_built: OpenBuilt) -> None:
    code = opened(image(wide=wide), open_built, wide=wide)
    assert code is not None
    assert code.method_at(HOT[0] + 5) == NativeMethod(0x1100, HOT[0], True)
    assert code.method_at(HOT[0] + 2 * STEP) == NativeMethod(0x1200, HOT[0] + 2 * STEP, True)
    assert [code.method_at(OTHER[0] + STEP * i) for i in range(6)] == [
        NativeMethod(0x1400 + 0x100 * i, OTHER[0] + STEP * i, True) for i in range(6)
    ]
    assert code.method_at(HOT[0] - 1) is None and code.method_at(OTHER[0] + OTHER[1]) is None
    assert (code.method_at(HOT[0] + 0x1D) is None) is wide  # only x64 says where a function ends


def test_a_funclet_and_cold_code_are_parts_of_their_method(wide: bool, open_built: OpenBuilt) -> None:
    code = opened(image(wide=wide), open_built, wide=wide)
    assert code is not None
    assert code.method_at(HOT[0] + STEP + 1) == NativeMethod(0x1100, HOT[0] + STEP, False)
    assert code.method_at(COLD[0] + 3) == NativeMethod(0x1200, COLD[0], False)
    assert code.method_at(COLD[0] + STEP + 3) == NativeMethod(0x1200, COLD[0] + STEP, False)
    assert code.method_at(COLD[0] + 2 * STEP) == NativeMethod(0x1500, COLD[0] + 2 * STEP, False)
    end = HOT[0] + STEP + (0x1C if wide else STEP)
    assert code.function_at(HOT[0] + STEP) == (HOT[0] + STEP, end, 0x2080)


def test_a_layout_of_other_code_is_not_believed(wide: bool, open_built: OpenBuilt) -> None:
    data = bytearray(image(wide=wide))
    struct.pack_into("<I", data, MANAGER + 12, OTHER[1] + 4)
    assert opened(bytes(data), open_built, wide=wide) is None


@pytest.mark.parametrize("seed", range(40))
def test_damaged_tables_are_survived(wide: bool, seed: int, open_built: OpenBuilt) -> None:
    chance = random.Random(seed)
    data = bytearray(image(wide=wide))
    for _ in range(6):
        at = chance.choice((HEADER, MANAGER, MODULE, LAYOUT, HOT_TABLE, COLD_TABLE, HOT_DESCS, COLD_MAP))
        at += chance.randrange(0, 0x60, 4)
        data[at : at + 4] = chance.choice((bytes(4), b"\xff" * 4, chance.randbytes(4)))
    code = opened(bytes(data), open_built, wide=wide)
    for rva in range(0x2FF0, 0x3300, 0x10) if code else ():
        assert code is not None
        code.method_at(rva)
        code.function_at(rva)
