"""Structures with all members: they agree with the layout files, and those that people ask for are in every build."""

from __future__ import annotations

import pytest

from heapdump.layouts import layout_names, load
from heapdump.layouts.members import all_structs
from heapdump.process.types import LayoutTypes, TypeKind

NAMES = [*layout_names("x64"), *layout_names("x86")]
ASKED_FOR = {
    "_HEAP", "_HEAP_ENTRY", "_HEAP_SEGMENT", "_HEAP_VIRTUAL_ALLOC_ENTRY", "_LIST_ENTRY", "_PEB", "_TEB", "_NT_TIB",
    "_RTL_CRITICAL_SECTION", "_RTL_CRITICAL_SECTION_DEBUG", "_UNICODE_STRING", "_RTL_USER_PROCESS_PARAMETERS", "_CONTEXT",
    "_EXCEPTION_RECORD", "_PEB_LDR_DATA", "_LDR_DATA_TABLE_ENTRY", "_CLIENT_ID", "_HEAP_USERDATA_HEADER", "_HEAP_SUBSEGMENT",
}  # fmt: skip


def types(name: str) -> LayoutTypes:
    return LayoutTypes(all_structs(name), load(name).pointer_bytes)


@pytest.mark.parametrize("name", NAMES)
def test_every_build_has_what_people_ask_for(name):
    assert ASKED_FOR - {*types(name).names()} == set()
    assert load(name).structs.keys() <= {*types(name).names()}


@pytest.mark.parametrize("name", NAMES)
def test_members_lie_inside_and_agree_with_the_layout_file(name):
    source = types(name)
    for struct_name in source.names():
        found, own = source.struct(struct_name), load(name).structs.get(struct_name)
        assert found is not None and found.source and found.confidence
        for member in found.members:
            assert member.offset >= 0 and member.offset + member.type.size <= found.size, f"{struct_name}.{member.name}"
        if own is not None:
            offsets = {member.name: member.offset for member in found.members}
            assert {field: place.offset for field, place in own.fields.items()}.items() <= offsets.items(), struct_name
            assert found.size == own.size


@pytest.mark.parametrize(
    ("name", "struct", "size", "members"),
    [
        ("x64_19041", "_HEAP", 704, {"FreeLists": 0x150, "Counters": 0x238, "Encoding": 0x80, "LockVariable": 0x160}),
        ("x86_7601", "_HEAP", 312, {"Encoding": 0x50, "VirtualAllocdBlocks": 0xA0, "LockVariable": 0xCC}),
        ("x86_2600", "_PEB", 0x210, {"Ldr": 0xC, "ProcessHeap": 0x18, "NtGlobalFlag": 0x68, "LoaderLock": 0xA0}),
        ("x64_9600", "_TEB", 0x1820, {"ClientId": 0x40, "ProcessEnvironmentBlock": 0x60, "LastErrorValue": 0x68}),
        ("x64_17763", "_RTL_CRITICAL_SECTION", 40, {"LockCount": 8, "RecursionCount": 12, "OwningThread": 16}),
    ],
)
def test_pinned_offsets_hold(name, struct, size, members):
    found = types(name).struct(struct)
    assert found is not None and found.size == size
    offsets = {member.name: member.offset for member in found.members}
    assert {field: offsets[field] for field in members} == members


def test_types_as_layout_files_write_them():
    source = types("x64_19041")
    shapes = {
        text: (found.kind, found.size, found.text)
        for text in (
            "u32",
            "i16",
            "ptr",
            "ptr:_HEAP",
            "ptr:ptr:void",
            "_LIST_ENTRY[128]",
            "u16:bits(11,5)",
            "ptr:void[64]",
            "_NOT_KNOWN",
        )
        if (found := source.type(text))
    }
    assert shapes == {
        "u32": (TypeKind.UNSIGNED, 4, "u32"), "i16": (TypeKind.SIGNED, 2, "i16"), "ptr": (TypeKind.POINTER, 8, "void*"),
        "ptr:_HEAP": (TypeKind.POINTER, 8, "_HEAP*"), "ptr:ptr:void": (TypeKind.POINTER, 8, "void**"),
        "_LIST_ENTRY[128]": (TypeKind.ARRAY, 2048, "_LIST_ENTRY[128]"), "u16:bits(11,5)": (TypeKind.BITS, 2, "u16:5"),
        "ptr:void[64]": (TypeKind.ARRAY, 512, "void*[64]"), "_NOT_KNOWN": (TypeKind.UNKNOWN, 0, "_NOT_KNOWN"),
    }  # fmt: skip
