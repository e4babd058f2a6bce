"""A Java VM that describes itself: heap by collector, histogram, compiled methods, damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heapdump.analyses.managed.places import ManagedReferrers, Referrer
from heapdump.commands.common.managed import referrer_lines
from heapdump.snapshot import open_dump
from tests.asking import ask
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.java_vm import CODE, HEAP, JVM, REGION, TABLE_BYTES, TABLES, Collector, JavaVmBuilder
from tests.patching import poke


def built(vm: JavaVmBuilder) -> BuiltDump:
    process = ProcessBuilder(build=19041)
    process.thread(4)
    patches = vm.add_to(process)
    return poke(process.build(), *patches)


def some_objects(collector: Collector = "G1") -> JavaVmBuilder:
    vm = JavaVmBuilder(collector)
    vm.instance("com/acme/Order", 24, count=100)
    vm.instance("com/acme/Order$Line", 40, count=7, old=True)
    vm.array("[B", 1, 33)
    vm.array("[Ljava/lang/String;", 4, 5, old=True)
    return vm


def managed(path: Path, *words: str) -> dict[str, object]:
    data: dict[str, object] = json.loads(ask(path.parent / "index", ["managed", str(path), *words, "--json"]).stdout)[
        "data"
    ]
    return data


def write(path: Path, vm: JavaVmBuilder) -> Path:
    path.write_bytes(built(vm).data)
    return path


@pytest.mark.parametrize("collector", ["G1", "Serial", "Parallel"])
def test_types_are_counted_exactly(tmp_path, collector):
    data = managed(write(tmp_path / "java.dmp", some_objects(collector)))
    assert data["types"] == [
        {"type": "com.acme.Order", "count": 100, "bytes": 2400},
        {"type": "com.acme.Order$Line", "count": 7, "bytes": 280},
        {"type": "byte[]", "count": 1, "bytes": 56},
        {"type": "java.lang.String[]", "count": 1, "bytes": 40},
    ]
    assert data["runtime"]["kind"] == "Java"  # type: ignore[index]
    assert data["runtime"]["version"] == "25.0.2+10"  # type: ignore[index]


def test_every_class_of_many_is_counted(tmp_path):
    """More classes than there are places in the first tables, met in a space before the last one."""
    vm = JavaVmBuilder("Serial")
    for i in range(1500):
        vm.instance(f"com/acme/T{i}", 24, old=True)
        vm.instance(f"com/acme/T{i}", 24)
    data = managed(write(tmp_path / "many.dmp", vm))
    types = data["types"]
    assert isinstance(types, list)
    assert {row["type"]: row["count"] for row in types} == {f"com.acme.T{i}": 2 for i in range(1500)}


def test_a_collector_that_is_not_read_gives_the_reservation_and_says_so(tmp_path):
    path = write(tmp_path / "java.dmp", some_objects("other"))
    answer = ask(tmp_path / "index", ["managed", str(path), "--json"])
    assert (answer.exit_code, json.loads(answer.stdout)["data"]["types"]) == (4, [])
    assert "only the heaps of G1, Serial and Parallel are read" in answer.stderr
    rows = json.loads(ask(tmp_path / "index", ["regions", str(path), "--json"]).stdout)["data"]
    assert sum(row["size"] for row in rows if row["detail"].startswith("Java heap")) == 8 * REGION


@pytest.mark.parametrize("ring", [False, True])
def test_metaspace_and_card_table_are_named_to_the_byte(tmp_path, ring):
    """A list of classes that closes in itself ends, and names the same memory."""
    vm = some_objects()
    vm.metaspace, vm.ring = True, ring
    path = write(tmp_path / "java.dmp", vm)
    rows = json.loads(ask(tmp_path / "index", ["regions", str(path), "--json"]).stdout)["data"]
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row["detail"]] = sizes.get(row["detail"], 0) + row["size"]
    assert sizes["Java metaspace"] == 0x10000
    assert sizes["Java metaspace, class space"] == TABLE_BYTES
    assert sizes["Java card table"] == 8 * REGION // 512
    assert sizes["Java performance counters"] == 0x800
    summary = json.loads(ask(tmp_path / "index", ["summary", str(path), "--json"]).stdout)["data"]
    items = {line["item"]: line["bytes"] for line in summary["reconciliation"]}
    assert items["class metadata (metaspace)"] == 0x1000 + TABLE_BYTES


def test_an_object_larger_than_a_region_is_one_object(tmp_path):
    vm = JavaVmBuilder("G1")
    vm.array("[J", 8, 3 * REGION // 8, old=True)
    data = managed(write(tmp_path / "java.dmp", vm))
    assert data["types"] == [{"type": "long[]", "count": 1, "bytes": 3 * REGION + 16}]


def test_remains_in_an_allocation_buffer_are_no_objects(tmp_path):
    vm = some_objects()
    vm.leave_unused(320)
    types = managed(write(tmp_path / "java.dmp", vm))["types"]
    assert types[0] == {"type": "com.acme.Order", "count": 100, "bytes": 2400}  # type: ignore[index]


def test_an_address_names_the_object_or_the_compiled_method(tmp_path):
    vm = some_objects()
    inside = vm.method("com/acme/Order", "total")
    path = write(tmp_path / "java.dmp", vm)
    record = managed(path, hex(HEAP + 24 + 5))
    assert (record["type"], record["size"], record["generation"]) == ("com.acme.Order", 24, "eden")
    record = managed(path, hex(inside))
    assert (record["kind"], record["type"], record["method"], record["trust"]) == (
        "method",
        "com.acme.Order",
        "total",
        "exact",
    )
    assert managed(path, hex(CODE + 0xF00))["kind"] is None


def test_a_dump_without_jvm_has_no_runtime(tmp_path):
    path = tmp_path / "plain.dmp"
    process = ProcessBuilder(build=19041)
    process.thread(4)
    path.write_bytes(process.build().data)
    assert managed(path)["runtime"] is None


@settings(max_examples=30)
@example(at=4644, noise=bytes(14) + b"\x07")  # the offset of the class in an object
@given(at=st.integers(0, 0x3000), noise=st.binary(min_size=1, max_size=64))
def test_random_damage_to_tables_and_classes_is_survived(tmp_path_factory, at, noise):
    path = tmp_path_factory.mktemp("java") / "java.dmp"
    path.write_bytes(poke(built(some_objects()), (TABLES + at, noise)).data)
    with open_dump(path, use_index=False) as snapshot:
        for runtime in snapshot.runtimes:
            assert runtime.heap is None or sum(row.count for row in runtime.heap.types()) < 10_000
            runtime.owners(), runtime.gaps(), runtime.code_at(JVM)


def test_pointers_of_32_bits_are_said_not_to_be_searched(tmp_path):
    answer = ask(tmp_path / "index", ["managed", str(write(tmp_path / "java.dmp", some_objects())), hex(HEAP)])
    assert answer.exit_code == 0
    assert "no pointer to it was found in what could be searched" in answer.stdout
    assert "(compressed oops), which are not searched" in answer.stdout


def test_pointers_that_are_not_searched_are_said_below_those_that_were_found():
    found = ManagedReferrers((Referrer(0x10, None, None),), (), ("a note",))
    assert [line[0][0].strip() for line in referrer_lines(found)] == ["pointed to by:", "0x10  no object", "a note"]
