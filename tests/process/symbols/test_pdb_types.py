"""Types of PDBs that the tests write: members, bases, arrays, bit fields, enumerations; damage."""

from __future__ import annotations

import random
import struct

import pytest

from heapdump.dump.streams import PdbId
from heapdump.process.symbols.pdb_types import DamagedTypes, PdbTypes, open_types
from heapdump.process.types import StructType, TypeKind
from tests.builders.pdb import TypeStream, base, member, method, pdb

INT, CHAR, WCHAR, DOUBLE, VOID_POINTER = 0x74, 0x70, 0x71, 0x41, 0x603
GUID = bytes(range(16))


def stream() -> bytes:
    types = TypeStream()
    point = types.structure("ns::Point", 8, types.fields(member("x", 0, INT), member("y", 4, INT)))
    declared = types.structure("ns::Task", 0, forward=True)
    bits = types.bits(0x75, 3, 4)
    state = types.enumeration("State", "idle", "running")
    vtable = struct.pack("<HHI", 0x1409, 0, types.pointer(0x03))
    more = types.fields(member("last", 0x68, DOUBLE))
    fields = types.fields(
        vtable, base(8, point), method("run", introduces_virtual=True), method("stop"),
        member("next", 0x10, types.pointer(declared)), member("corners", 0x18, types.array(point, 24)),
        member("name", 0x30, types.array(CHAR, 16)), member("wide", 0x40, types.array(WCHAR, 8)),
        member("flags", 0x48, bits), member("state", 0x4C, state), member("data", 0x50, VOID_POINTER),
        struct.pack("<HHI", 0x1404, 0, more),
    )  # fmt: skip
    types.structure("ns::Task", 0x70, fields)
    types.structure("Either", 8, types.fields(member("i", 0, INT), member("d", 0, DOUBLE)), union=True)
    return types.build()


def task(types: PdbTypes) -> StructType:
    found = types.struct("ns::Task")
    assert found is not None
    return found


def test_members_have_their_types():
    types = PdbTypes(stream(), 8)
    assert types.names() == ["Either", "ns::Point", "ns::Task"]
    found = task(types)
    assert found.size == 0x70
    assert [(m.name, m.offset, m.type.text, m.type.size) for m in found.members] == [
        ("(vtable)", 0, "vtable*", 8), ("(ns::Point)", 8, "ns::Point", 8), ("next", 0x10, "ns::Task*", 8),
        ("corners", 0x18, "ns::Point[3]", 24), ("name", 0x30, "char[16]", 16), ("wide", 0x40, "wchar_t[4]", 8),
        ("flags", 0x48, "unsigned int:3", 4), ("state", 0x4C, "State", 4), ("data", 0x50, "void*", 8), ("last", 0x68, "double", 8),
    ]  # fmt: skip
    by_name = {m.name: m.type for m in found.members}
    assert (by_name["flags"].bit, by_name["flags"].bits) == (4, 3)
    assert by_name["state"].names == ((0, "idle"), (1, "running"))
    assert by_name["next"].target == "ns::Task"
    union = types.struct("Either")
    assert union is not None and [(m.name, m.type.kind) for m in union.members] == [
        ("i", TypeKind.SIGNED),
        ("d", TypeKind.FLOAT),
    ]
    assert types.struct("ns::Nothing") is None


def test_a_declaration_before_its_definition_has_the_size_of_the_definition():
    types = TypeStream()
    declared = types.structure("Later", 0, forward=True)
    types.structure("Holder", 24, types.fields(member("inner", 8, declared)))
    types.structure("Later", 16, types.fields(member("i", 0, INT)))
    holder = PdbTypes(types.build(), 8).struct("Holder")
    assert holder is not None and holder.members[0].type.size == 16


def test_a_pdb_is_found_by_its_guid_and_age(tmp_path):
    (tmp_path / "app.pdb").write_bytes(pdb(stream(), GUID, 3))
    guid = "03020100050407060809" + "0A0B0C0D0E0F"
    notes: list[str] = []
    found = open_types(str(tmp_path), PdbId(r"C:\b\app.pdb", guid, 3), notes, 8)
    assert found is not None and task(found).size == 0x70 and notes == []
    assert open_types(str(tmp_path), PdbId("app.pdb", "F" * 32, 3), notes, 8) is None
    assert "another build's" in notes[0]


@pytest.mark.parametrize("length", [0, 10, 55])
def test_a_stream_without_a_header_is_damaged(length):
    with pytest.raises(DamagedTypes):
        PdbTypes(stream()[:length], 8)


def test_damaged_records_never_raise():
    data, chance = stream(), random.Random(7)
    for _ in range(600):
        hurt = bytearray(data)
        for _ in range(chance.choice((1, 3, 30))):
            hurt[chance.randrange(56, len(hurt))] = chance.choice((0, 0xFF, chance.randrange(256)))
        types = PdbTypes(bytes(hurt[: chance.choice((len(hurt), chance.randrange(56, len(hurt))))]), 8)
        for name in types.names():
            found = types.struct(name)
            assert found is None or all(m.type.text is not None for m in found.members)


def test_types_that_contain_themselves_end():
    types = TypeStream()
    types.array(0x1000, 100)  # an array of itself
    types.pointer(0x1001)
    types.structure(
        "Loop", 8, types.fields(member("a", 0, 0x1000), member("p", 0, 0x1001), struct.pack("<HHI", 0x1404, 0, 0x1002))
    )
    found = PdbTypes(types.build(), 8).struct("Loop")
    assert found is not None and [m.name for m in found.members] == ["a", "p"]
