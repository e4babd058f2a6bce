"""Built CLRs of every layout generation: methods, objects and stacks are those that were built."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

from heapdump.analyses.managed.places import referrers
from heapdump.analyses.threads import all_stacks
from heapdump.cli import cli
from heapdump.runtimes.runtime import CodePlace, ManagedObject, ObjectHeap, Runtime
from heapdump.snapshot import Snapshot
from heapdump.trust import Trust
from tests.builders import ProcessBuilder
from tests.builders.clr import STUBS, ClrBuilder, Release
from tests.builders.clr_metadata import MetadataBuilder
from tests.patching import without_memory
from tests.runtimes.dotnet.plans import RELEASES, Plan, plan

FOUND_BY = {
    "2.1": ("module", "DAC resource"),
    "2.2": ("module", "DAC resource"), "3.1": ("module", "DAC resource"), "8": ("module", "g_dacTable"),
    "10": ("module", "contract descriptor", "g_dacTable"),
}  # fmt: skip


@pytest.fixture(params=[(release, flat) for release in RELEASES for flat in (False, True)], ids=str)
def made(request: pytest.FixtureRequest) -> Plan:
    release, flat = request.param
    return plan(release, flat=flat)


@pytest.fixture
def snapshot(made: Plan, open_built):
    with open_built(made.clr.build()) as opened:
        yield opened


def only(snapshot: Snapshot) -> Runtime:
    (found,) = snapshot.runtimes
    return found


def heap_of(snapshot: Snapshot) -> ObjectHeap:
    heap = only(snapshot).heap
    assert heap is not None
    return heap


def object_at(snapshot: Snapshot, address: int) -> ManagedObject:
    found = heap_of(snapshot).object_at(address)
    assert found is not None
    return found


def code_at(snapshot: Snapshot, address: int) -> CodePlace:
    found = only(snapshot).code_at(address)
    assert found is not None
    return found


def test_the_runtime_is_found_with_its_evidence(snapshot, made):
    info = only(snapshot).info
    assert (info.kind, info.module, info.version) == (".NET", "coreclr.dll", "8.0.1.2")
    assert info.found_by == FOUND_BY[made.clr.release]
    assert only(snapshot).gaps() == []


@pytest.mark.parametrize("release", ["8", "10"])
def test_a_single_file_app_is_found_by_its_export(release: Release, open_built):
    with open_built(plan(release, single_file=True).clr.build()) as snapshot:
        info = only(snapshot).info
        assert (info.module, info.version, info.found_by[0]) == ("host.exe", None, "export")
        assert only(snapshot).heap is not None


def test_every_byte_of_a_method_leads_to_it(snapshot, made):
    clr = only(snapshot)
    assert clr.code().methods == len(made.methods)
    for start, (type_, method, token, desc, size) in made.methods.items():
        for address in (start, start + 1, start + size // 2, start + size - 1):
            found = clr.code_at(address)
            assert found is not None, (hex(address), method)
            assert (found.kind, found.start, found.type, found.method) == ("method", start, type_, method)
            assert (found.token, found.descriptor, found.trust) == (token, desc, Trust.EXACT)
            assert not found.is_handler


def test_no_name_is_given_outside_of_methods(snapshot, made):
    clr = only(snapshot)
    assert code_at(snapshot, made.places["stub"]).kind == "stub"
    if made.clr.traits.mapped:  # the second range of a leaf of the map
        assert code_at(snapshot, STUBS + 0x10).kind == "stub"
    last = max(made.methods)
    size = made.methods[last][4]
    assert clr.code_at(last + size + 0x400) is None
    assert clr.code_at(min(made.methods) - 1) is None
    assert clr.code_at(0x1234) is None


def test_a_handler_is_named_as_its_method(snapshot, made):
    if made.clr.p == 8:
        found = code_at(snapshot, made.places["handler"])
        assert (found.start, found.method, found.is_handler, found.note) == (
            made.places["tier1"],
            "Pay",
            True,
            "handler",
        )


def test_the_heap_has_the_objects_that_were_built(snapshot, made):
    heap = heap_of(snapshot)
    count, size = Counter[str](), Counter[str]()
    for name, bytes_ in made.objects.values():
        count[name] += 1
        size[name] += bytes_
    assert {row.type: (row.count, row.bytes) for row in heap.types() if row.type != "Free"} == {
        name: (count[name], size[name]) for name in count
    }
    free = next(row for row in heap.types() if row.type == "Free")
    assert (free.count, free.bytes) == (1, 3 * made.clr.p + 40)
    assert sum(row.objects for row in heap.rows()) == len(made.objects)
    assert heap.gaps() == []


def test_every_address_of_an_object_leads_to_it(snapshot, made):
    heap = heap_of(snapshot)
    for address, (name, size) in made.objects.items():
        for inside in (address, address + size // 2, address + size - 1):
            found = object_at(snapshot, inside)
            assert (found.address, found.type, found.bytes) == (address, name, size)
    assert heap.object_at(made.clr.segment_start("gen0")) is None  # a gap
    assert heap.text_of(object_at(snapshot, made.places["text"])) == "späteß7"
    assert object_at(snapshot, made.places["order"]).is_finalizable


@pytest.mark.parametrize(("most", "text"), [(7, "späteß7"), (6, "späteß…")])
def test_a_string_that_is_cut_ends_with_a_mark(open_built, monkeypatch, most, text):
    monkeypatch.setattr("heapdump.runtimes.dotnet.managed_heap._MOST_CHARACTERS", most)
    made = plan("8")
    with open_built(made.clr.build()) as snapshot:
        assert heap_of(snapshot).text_of(object_at(snapshot, made.places["text"])) == text


def test_live_spans_are_all_objects_without_free_space(snapshot, made):
    heap = heap_of(snapshot)
    spans = heap.live_spans()
    for address, (_, size) in made.objects.items():
        assert any(span.start <= address and address + size <= span.end for span in spans)
    inside = sum(span.size for span in heap.spans())
    assert inside - sum(span.size for span in spans) == 3 * made.clr.p + 40


def test_generations_are_told_apart(snapshot, made):
    heap = heap_of(snapshot)
    assert object_at(snapshot, made.places["order"]).generation == "gen2"
    rows = {row.generation: row for row in heap.rows()}
    young = 2 + (not made.clr.traits.mapped)
    assert (rows["gen1"].objects, rows["gen0"].objects, rows["large"].objects) == (1, young, 1)


def test_fields_and_referrers_are_named(snapshot, made):
    heap, p = heap_of(snapshot), made.clr.p
    order = object_at(snapshot, made.places["order"])
    assert heap.field_at(order, order.address + p) == "_handle"
    assert heap.field_at(order, order.address + 2 * p) == "_total"
    pointing = list(heap.pointers_to(made.places["order"]))
    sources = [object_at(snapshot, at) for at in pointing]
    assert "Acme.Orders.Ledger<Acme.Orders.Order>" in [source.type for source in sources]


def test_what_is_not_searched_or_listed_of_referrers_is_said(snapshot, made, monkeypatch):
    order, space = made.places["order"], snapshot.process.space
    found = referrers(space, snapshot.runtimes, order)
    assert len(found.words) >= 1 and not found.gaps
    monkeypatch.setattr("heapdump.analyses.managed.places._MOST_REFERRERS", len(found.words) - 1)
    cut = referrers(space, snapshot.runtimes, order)
    assert cut.words == found.words[:-1]
    assert cut.gaps == (f"only the first {len(cut.words)} words that point to the object are listed",)


@pytest.mark.parametrize("release", RELEASES)
def test_referrers_in_missing_memory_are_not_denied(release: Release, open_built):
    made = plan(release)
    built = made.clr.build()
    with open_built(built) as whole:
        span = heap_of(whole).spans()[-1]
    with open_built(without_memory(built, (span.end - 0x10, span.end))) as snapshot:
        (gap,) = referrers(snapshot.process.space, snapshot.runtimes, made.places["order"]).gaps
        assert "of the managed heap are not in the dump: pointers there are not seen" in gap


@pytest.mark.parametrize("release", ["2.2", "3.1", "8", "10"])
def test_x64_stacks_lead_through_jitted_code(release: Release, open_built):
    made = plan(release)
    starts = list(made.methods)
    stack = bytearray(0x4000)
    struct.pack_into("<Q", stack, 0x100 + 0x28, starts[1] + 0x20)  # each function keeps 0x28 bytes
    struct.pack_into("<Q", stack, 0x100 + 0x58, starts[2] + 0x20)
    registers = {"rip": starts[0] + 0x20, "rsp": 0x50000100}
    with open_built(made.clr.build(stack=bytes(stack), registers=registers)) as snapshot:
        (frames,) = all_stacks(snapshot.process, snapshot.process.threads, snapshot.namer())[0]
        names = [(str(one.frame), one.how) for one in frames.frames[:3]]
    wanted = [(made.methods[start][0], made.methods[start][1]) for start in starts[:3]]
    assert names == [
        (f"System.Private.CoreLib!{type_}.{method}()+0x20", how)
        for (type_, method), how in zip(wanted, ("context", "managed", "managed"), strict=True)
    ]


@pytest.mark.parametrize("piece", ["clr", "loader", "code", "gc", "images"])
@pytest.mark.parametrize("release", RELEASES)
def test_what_the_dump_lacks_is_absent_and_said(release: Release, piece: str, open_built):
    made = plan(release)
    with open_built(made.clr.build(drop=[piece])) as snapshot:
        for clr in snapshot.runtimes:
            for start, (type_, method, *_) in made.methods.items():
                found = clr.code_at(start)
                if found is not None and found.trust is Trust.EXACT and found.method is not None:
                    assert (found.type, found.method) == (type_, method)
            if clr.heap is not None:
                types = {row.type for row in clr.heap.types()}
                assert types <= {name for name, _ in made.objects.values()} | {"Free"} or piece == "images"
            if piece == "clr":
                assert clr.gaps()


def test_the_out_of_memory_record_is_told(open_built):
    made = plan("8")
    made.clr.oom = (2, 1 << 20, 0, 0)
    with open_built(made.clr.build()) as snapshot:
        (line,) = only(snapshot).trouble()
        assert line == "managed OutOfMemory: the GC could not commit memory for an allocation of 1,048,576 bytes"


@pytest.mark.parametrize("release", RELEASES)
def test_without_tables_methods_are_found_by_the_pattern_of_their_code(release: Release, open_built):
    made = plan(release)
    made.clr.hides_tables = True
    with open_built(made.clr.build()) as snapshot:
        clr = only(snapshot)
        assert clr.info.found_by == ("module", "pattern of code", "shape of the collector's variables")
        assert {row.type for row in heap_of(snapshot).types()} == {name for name, _ in made.objects.values()} | {"Free"}
        assert clr.code().methods == len(made.methods)
        for start, (type_, method, token, _, size) in made.methods.items():
            for address in (start, start + size - 1):
                found = code_at(snapshot, address)
                assert (found.start, found.type, found.method, found.token) == (start, type_, method, token)
                assert found.trust is Trust.GUESS
        assert clr.code_at(min(made.methods) - 1) is None
        assert clr.gaps()


def test_the_pattern_is_searched_behind_executable_memory_that_is_too_large(open_built, monkeypatch):
    monkeypatch.setattr("heapdump.runtimes.dotnet.pattern._MOST_BYTES", 8 << 20)
    made = plan("8")
    made.clr.hides_tables = True
    process = made.clr.add_to(ProcessBuilder(build=19041)).region(0x19000000, 9 << 20, protect=0x40)
    with open_built(process) as snapshot:
        assert only(snapshot).code().methods == len(made.methods)


@pytest.mark.parametrize(
    ("hidden", "found_by"),
    [
        (("descriptor",), ("g_dacTable",)),
        (("table",), ("contract descriptor", "shape of the collector's variables")),
        (("descriptor", "table"), ("pattern of code", "shape of the collector's variables")),
    ],
)
def test_the_next_table_serves_where_one_is_hidden(
    hidden: tuple[Literal["descriptor", "table"], ...], found_by: tuple[str, ...], open_built
):
    made = plan("10")
    made.clr.hidden = hidden
    with open_built(made.clr.build()) as snapshot:
        assert only(snapshot).info.found_by == ("module", *found_by)
        for start, (type_, method, token, desc, _) in made.methods.items():
            found = code_at(snapshot, start + 5)
            assert (found.type, found.method, found.token, found.descriptor) == (type_, method, token, desc)
            assert found.trust == ("guess" if len(hidden) == 2 else "exact")
        heap = heap_of(snapshot)
        assert sum(row.objects for row in heap.rows()) == len(made.objects)
        assert {heap_object.type for at in made.objects if (heap_object := heap.object_at(at))} == {
            name for name, _ in made.objects.values()
        }


def test_every_type_of_many_is_counted_in_every_segment(open_built):
    """More types than there are places in the first tables, each in the segments of two generations."""
    clr, app = ClrBuilder("10", loader_bytes=0x200000), MetadataBuilder("Acme")
    module = clr.assembly(app)
    for i in range(2500):
        kind = clr.type(module, app.type("Acme", f"T{i}")[0], base_size=24)
        clr.object("gen2", kind)
        clr.object("gen1", kind)
    clr.jit(clr.type(module, *app.type("Acme", "Main", ["Run"])[:2]).descs[0])
    with open_built(clr.build()) as snapshot:
        heap = heap_of(snapshot)
        assert {row.type: row.count for row in heap.types()} == {f"Acme.T{i}": 2 for i in range(2500)}
        places = [clr.segment_start("gen1") + 24 * i + 8 for i in (2499, 7, 8, 2000, 0, 2499)]
        names = [found.type for at in places if (found := heap.object_at(at))]
        assert names == [f"Acme.T{i}" for i in (2499, 7, 8, 2000, 0, 2499)]


@pytest.mark.parametrize("release", ["3.1", "10"])
def test_managed_threads_show_the_managed_frames_alone(release: Release, tmp_path: Path):
    made = plan(release)
    start = min(made.methods)
    path = tmp_path / "threads.dmp"
    path.write_bytes(made.clr.build(stack=b"", registers={"rip": start + 0x20, "rsp": 0x50000100}).data)
    result = CliRunner().invoke(cli, ["managed", str(path), "--threads"])
    assert "System.Private.CoreLib!System.Object.ToString()+0x20" in result.output
    assert "Types" not in result.output


@pytest.mark.parametrize("release", RELEASES)
def test_the_heap_of_server_gc_is_walked(release: Release, open_built):
    made = plan(release)
    made.clr.is_server = True
    with open_built(made.clr.build()) as snapshot:
        heap = heap_of(snapshot)
        assert sum(row.objects for row in heap.rows()) == len(made.objects)
        for address, (name, size) in made.objects.items():
            found = object_at(snapshot, address)
            assert (found.address, found.type, found.bytes) == (address, name, size)


@pytest.mark.parametrize("is_fixup", [True, False])
@pytest.mark.parametrize("release", ["8", "10"])
def test_a_stub_names_the_method_that_it_leads_to(release: Release, is_fixup: bool, open_built):
    made = plan(release)
    type_, method, token, desc, _ = made.methods[
        max(start for start in made.methods if made.methods[start][1] == "Post")
    ]
    start = made.clr.precode(desc, is_fixup=is_fixup)
    with open_built(made.clr.build()) as snapshot:
        for address in (start, start + 6, start + 12, start + 0x17 * is_fixup):
            found = code_at(snapshot, address)
            assert (found.kind, found.start, found.type, found.method) == ("stub", start, type_, method)
            assert (found.token, found.descriptor, found.trust) == (token, desc, Trust.DERIVED)
        assert code_at(snapshot, start + 0x40).method is None
