"""The layout files: all load, ranges of one processor do not overlap, members fit, witnesses are pinned."""

from __future__ import annotations

import ast
import json
from itertools import pairwise
from pathlib import Path

import pytest

from heapdump import layouts
from heapdump.layouts import candidates, first_build, layout_names, load

FOLDER = Path(layouts.__file__).parent
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
SCALARS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8}


def size_of(name: str, kind: str) -> int:
    """Bytes of a member's type; a struct the layout does not describe counts as the least it can be."""
    layout = load(name)
    base, _, count = kind.partition("[")
    known = {"ptr": layout.pointer_bytes, "_LIST_ENTRY": 2 * layout.pointer_bytes, **SCALARS}
    each = known.get(base) or (layout[base].size if base in layout else 1)
    return each * int(count.rstrip("]") or 1) if count else each


def test_every_file_is_a_layout_of_its_processor():
    assert len(FILES) >= 39
    assert sorted((*layout_names("x64"), *layout_names("x86"))) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_its_name_says(name):
    layout = load(name)
    assert layout.name == name
    assert layout.arch == name.split("_")[0]
    assert layout.first == first_build(name)
    assert layout.first <= layout.last
    assert layout.pointer_bytes == (8 if layout.arch == "x64" else 4)


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_ranges_of_a_processor_are_ascending_and_do_not_overlap(arch):
    ranges = [(load(name).first, load(name).last) for name in layout_names(arch)]
    assert all(last < following for (_, last), (following, _) in pairwise(ranges))


@pytest.mark.parametrize("name", FILES)
def test_members_lie_inside_their_structure_and_on_their_alignment(name):
    layout = load(name)
    for struct in layout.structs.values():
        for field, place in struct.fields.items():
            size = size_of(name, place.type)
            assert place.offset >= 0 and place.offset + size <= struct.size, f"{struct.name}.{field}"
            if place.type in SCALARS or place.type == "ptr":
                assert place.offset % min(size, 8) == 0, f"{struct.name}.{field} is not aligned"


@pytest.mark.parametrize("name", FILES)
def test_scalar_members_do_not_overlap_each_other(name):
    for struct in load(name).structs.values():
        places = sorted(
            (f.offset, f.offset + size_of(name, f.type), field)
            for field, f in struct.fields.items()
            if f.type in SCALARS or f.type == "ptr"
        )
        for (_, end, one), (start, _, other) in pairwise(places):
            assert end <= start, f"{struct.name}: {one} and {other}"


@pytest.mark.parametrize("name", FILES)
def test_every_structure_names_its_source_and_confidence(name):
    document = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert {"arch", "first", "last", "structs"} <= document.keys()
    for struct in load(name).structs.values():
        assert struct.source and struct.confidence


@pytest.mark.parametrize("name", FILES)
def test_the_members_that_verify_a_heap_are_there(name):
    layout = load(name)
    heap = layout["_HEAP"]
    assert {"Signature", "Flags", "VirtualAllocdBlocks", "TotalFreeSize", "FrontEndHeap", "FrontEndHeapType"} <= {
        *heap.fields
    }
    assert {"NumberOfHeaps", "MaximumNumberOfHeaps", "ProcessHeaps", "ProcessHeap"} <= {*layout["_PEB"].fields}
    assert {"CommitSize", "ReserveSize", "BusyBlock"} <= {*layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].fields}
    if layout.first[0] < 6000:
        assert {"Segments"} <= {*heap.fields}
        assert {"Signature", "Heap", "BaseAddress", "NumberOfPages", "UnCommittedRanges"} <= {
            *layout["_HEAP_SEGMENT"].fields
        }
        assert "_HEAP_UNCOMMMTTED_RANGE" in layout
    else:
        assert {"SegmentSignature", "SegmentListEntry", "SegmentList", "Counters", "Heap"} <= {*heap.fields}
        assert {"SegmentSignature", "SegmentListEntry", "UCRSegmentList", "Heap"} <= {*layout["_HEAP_SEGMENT"].fields}
        assert {"SegmentEntry", "Address", "Size"} <= {*layout["_HEAP_UCR_DESCRIPTOR"].fields}


PINNED = [
    # stated once more by hand: (layout, _HEAP.Signature, VirtualAllocdBlocks, SegmentList or Segments, Counters or None)
    ("x86_2600", 0x8, 0x50, 0x58, None),
    ("x86_3790", 0x8, 0x50, 0x58, None),
    ("x64_3790", 0x10, 0x90, 0xA0, None),
    ("x86_6002", 0x64, 0xA0, 0xA8, 0xDC),
    ("x64_6002", 0xA0, 0x118, 0x128, 0x188),
    ("x86_7601", 0x64, 0xA0, 0xA8, 0xDC),
    ("x64_7601", 0xA0, 0x118, 0x128, 0x188),
    ("x86_9600", 0x60, 0x9C, 0xA4, 0x1E0),
    ("x64_9600", 0x98, 0x110, 0x120, 0x210),
    ("x86_14393", 0x60, 0x9C, 0xA4, 0x1E4),
    ("x64_14393", 0x98, 0x110, 0x120, 0x218),
    ("x64_17763.379", 0x98, 0x110, 0x120, 0x238),
    ("x86_19041", 0x60, 0x9C, 0xA4, 0x1F4),
    ("x64_19041", 0x98, 0x110, 0x120, 0x238),
    ("x64_26100", 0x98, 0x110, 0x120, 0x238),
]


@pytest.mark.parametrize(("name", "signature", "large", "segments", "counters"), PINNED)
def test_pinned_offsets_hold(name, signature, large, segments, counters):
    heap = load(name)["_HEAP"]
    assert heap.offset("Signature") == signature
    assert heap.offset("VirtualAllocdBlocks") == large
    assert heap.offset("Segments" if counters is None else "SegmentList") == segments
    if counters is not None:
        assert heap.offset("Counters") == counters


@pytest.mark.parametrize("name", FILES)
def test_large_block_sizes_lie_behind_two_lists_in_every_version(name):
    entry, pointer = load(name)["_HEAP_VIRTUAL_ALLOC_ENTRY"], load(name).pointer_bytes
    assert [entry.offset(f) for f in ("CommitSize", "ReserveSize", "BusyBlock")] == [
        4 * pointer,
        5 * pointer,
        6 * pointer,
    ]


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize(
    ("build", "revision"),
    [(0, 0), (2600, 0), (7601, 19135), (17763, 1), (17763, 475), (19045, 5), (22631, 1), (99999, 0)],
)
def test_candidates_are_the_older_ones_descending_then_the_newer_ones_ascending(arch, build, revision):
    names = candidates(arch, build, revision)
    assert sorted(names) == sorted(layout_names(arch))
    starts = [first_build(name) for name in names]
    older = [start for start in starts if start <= (build, revision)]
    newer = [start for start in starts if start > (build, revision)]
    assert starts == [*sorted(older, reverse=True), *sorted(newer)]


@pytest.mark.parametrize(
    ("arch", "build", "revision", "best", "exact"),
    [
        ("x64", 19041, 508, "x64_19041", True),
        ("x64", 19045, 0, "x64_19041", True),
        ("x64", 17763, 378, "x64_17763", True),
        ("x64", 17763, 379, "x64_17763.379", True),
        ("x64", 18363, 1, "x64_18362", True),
        ("x64", 22621, 1, "x64_22000", False),
        ("x64", 26200, 1, "x64_26100", True),
        ("x64", 90000, 0, layout_names("x64")[-1], False),
        ("x64", 1, 0, "x64_3790", False),
        ("x86", 2600, 5512, "x86_2600", True),
        ("x86", 22000, 1, "x86_19041", False),
        ("x86", 26100, 1, "x86_26100", True),
    ],
)
def test_the_best_candidate_is_the_range_that_holds_the_build(arch, build, revision, best, exact):
    layout = load(candidates(arch, build, revision)[0])
    assert (layout.name, layout.covers(build, revision)) == (best, exact)


def test_a_structure_decodes_scalars_and_pointers_and_leaves_out_what_is_cut_off():
    heap = load("x64_19041")["_HEAP"]
    data = bytes(range(256)) * 3
    complete = heap.decode(data[: heap.size], 8)
    assert complete["Signature"] == int.from_bytes(data[0x98:0x9C], "little")
    assert complete["TotalFreeSize"] == int.from_bytes(data[0xC0:0xC8], "little")
    assert "VirtualAllocdBlocks" not in complete
    cut = heap.decode(data[: heap.offset("Signature") + 3], 8)
    assert "Signature" not in cut
    assert cut["Flags"] == complete["Flags"]
    assert heap.decode(b"", 8) == {}


def test_a_signed_member_is_negative():
    teb = load("x64_19041")["_TEB"]
    at = teb.offset("WowTebOffset")
    data = bytes(at) + (-0x2000 & 0xFFFFFFFF).to_bytes(4, "little")
    assert teb.decode(data, 8)["WowTebOffset"] == -0x2000


def members_that_vary() -> set[str]:
    """Structures that some layouts have and others do not, and members of which the same holds."""
    structs = [load(name).structs for name in FILES]
    names = {struct for one in structs for struct in one}
    out = {name for name in names if not all(name in one for one in structs)}
    for name in names:
        having = [set(one[name].fields) for one in structs if name in one]
        out |= having[0].union(*having) - having[0].intersection(*having)
    return out


def members_asked_for() -> set[str]:
    """Constants on the left of `in` and `not in` in the code that reads structures."""
    out = set()
    for room in ("heaps", "process", "runtimes", "analyses"):
        for path in (FOLDER.parent / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
                    out |= {part.value for part in [node.left] if isinstance(part, ast.Constant)}
    return {name for name in out if isinstance(name, str)}


def test_members_that_switch_code_on_are_in_the_readme():
    """Who makes a layout file learns there which members to look for."""
    table = (FOLDER / "README.md").read_text(encoding="utf-8").split("## Members whose presence")[1]
    asked = members_asked_for() & members_that_vary()
    assert len(asked) >= 15
    assert sorted(name for name in asked if f"`{name}`" not in table) == []
