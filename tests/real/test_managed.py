"""Recorded .NET processes: what is read is what the program and its runtime said of themselves."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from heapdump.analyses.threads import all_stacks
from heapdump.runtimes.dotnet.clr import DotNet
from heapdump.runtimes.dotnet.descriptor import Descriptor
from heapdump.runtimes.dotnet.discovery import find_clrs
from heapdump.runtimes.dotnet.native_image import native_image
from heapdump.runtimes.dotnet.pe import mapped_image
from heapdump.runtimes.runtime import Runtime
from heapdump.snapshot import Snapshot, open_dump
from heapdump.trust import Trust
from tests.recordings import Recorded

pytestmark = pytest.mark.real

FOUND_BY = {
    "t10": ("export", "contract descriptor", "g_dacTable"),
    "t31": ("module", "DAC resource"),
    "t21": ("module", "DAC resource"),
}
WORDS = {"t10": 8, "t31": 8, "t21": 4}
ARCH = {"t10": "x64", "t31": "x64", "t21": "wow64"}


@pytest.fixture(params=FOUND_BY)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def snapshot(recorded: Recorded, name: str):
    with open_dump(recorded(f"managed/{name}.dmp.xz"), use_index=False) as opened:
        yield opened


@pytest.fixture
def clr(snapshot: Snapshot) -> Runtime:
    (found,) = snapshot.runtimes
    return found


def test_the_runtime_is_found(clr: Runtime, snapshot: Snapshot, name: str) -> None:
    assert snapshot.process.arch == ARCH[name]
    assert clr.info.found_by == FOUND_BY[name]
    assert clr.gaps() == []


def test_types_have_the_objects_that_the_program_made(clr: Runtime, recorded: Recorded, name: str) -> None:
    truth = json.loads(recorded(f"managed/{name}.truth.json.xz").read_text())
    assert clr.heap is not None
    counts = {row.type: row for row in clr.heap.types()}
    for want in truth["types"]:
        row = counts[want["type"]]
        assert (row.count, row.bytes) == (want["count"], want.get("bytes", row.bytes))
    total = sum(row.bytes for row in clr.heap.types() if row.type != "Free")
    assert abs(total - truth["gc_total_memory"]) < 128 << 10
    assert not [row.type for row in clr.heap.types() if "?" in row.type or row.type.startswith("MethodTable")]
    assert clr.heap.gaps() == []


@pytest.mark.parametrize("name", ["t10"])
def test_every_jitted_method_is_named(clr: Runtime, recorded: Recorded) -> None:
    truth = json.loads(recorded("managed/t10.truth.json.xz").read_text())
    for method in truth["methods"]:
        start = int(method["start"], 16)
        for address in (start, start + method["size"] // 2, start + method["size"] - 1):
            found = clr.code_at(address)
            assert found is not None and found.method is not None, method
            assert found.start <= address
            if found.token:
                assert (found.token, found.descriptor) == (int(method["token"], 16), int(method["method_desc"], 16))
                assert found.trust is Trust.EXACT


def test_every_object_of_a_segment_is_found_by_its_addresses(clr: Runtime, name: str) -> None:
    heap = clr.heap
    assert heap is not None
    address = heap.spans()[0].start
    for _ in range(20):
        found = heap.object_at(address)
        if found is None:
            address += WORDS[name]
            continue
        assert heap.object_at(found.address + found.bytes - 1) == found
        address = found.address + found.bytes


@pytest.mark.parametrize("name", ["t31"])
def test_fields_of_the_program_are_named(clr: Runtime, snapshot: Snapshot) -> None:
    heap = clr.heap
    assert heap is not None
    texts = ("late-7".encode("utf-16-le") + b"\0\0", "late-77".encode("utf-16-le") + b"\0\0")
    space = snapshot.process.space
    for span in heap.spans():
        data = space.read(span.start, span.size)
        for text in texts:
            at = data.find(text)
            if at < 0:
                continue
            found = heap.object_at(span.start + at)
            assert found is not None and found.type == "System.String"
            assert heap.text_of(found) == text[:-2].decode("utf-16-le")
            return
    pytest.fail("the program's strings are not there")


def plain(name: str) -> str:
    """The name without generic arguments and arity, types nested by dots."""
    before = ""
    while before != name:
        before, name = name, re.sub(r"<[^<>]*>|`\d+|\[[^\[\]]*\]", "", name)
    return name.replace("+", ".")


def test_stacks_show_the_frames_that_the_program_recorded(snapshot: Snapshot, recorded: Recorded, name: str) -> None:
    truth = json.loads(recorded(f"managed/{name}.truth.json.xz").read_text())
    stacks = all_stacks(snapshot.process, snapshot.process.threads, snapshot.namer())
    for thread in truth["threads"]:
        index = next(one.index for one in snapshot.process.threads if one.id == thread["tid"])
        found = [plain(one.frame.symbol or "") for stack in stacks[index] for one in stack.frames]
        parked = [frame["method"] for frame in thread["frames"]].index("Park")
        for frame in thread["frames"][parked:]:
            if frame["type"].startswith("Acme."):
                want = plain(f"{frame['type']}.{frame['method']}")
                assert want in found
                found = found[found.index(want) + 1 :]


@pytest.mark.parametrize("variables", [True, False], ids=["no descriptor", "no tables"])
def test_names_are_the_same_without_the_tables_of_the_runtime(snapshot: Snapshot, variables: bool) -> None:
    (whole,) = find_clrs(snapshot.process)
    hidden = replace(whole, descriptor=Descriptor(), variables=whole.variables if variables else ())
    one, other = DotNet(snapshot.process, whole), DotNet(snapshot.process, hidden)
    assert other.code().methods == one.code().methods
    for method in one.methods():
        for address in (method.start, method.end - 1):
            found, want = other.code_at(address), one.code_at(address)
            assert found is not None and want is not None
            assert (found.start, found.type, found.method, found.token, found.assembly) == (
                want.start, want.type, want.method, want.token, want.assembly,
            )  # fmt: skip
            assert found.trust is (Trust.EXACT if variables else Trust.GUESS)


def test_code_of_a_fragile_image_is_named(recorded: Recorded) -> None:
    """CoreLib of .NET Core 2.1 is an image of NGEN's kind: its threads start in it."""
    with open_dump(recorded("managed/t21.dmp.xz"), use_index=False) as opened:
        (clr,) = opened.runtimes
        namer = opened.namer()
        frames = [
            str(found.frame)
            for stacks in all_stacks(opened.process, opened.process.threads, namer).values()
            for stack in stacks
            for found in stack.frames
        ]
        started = [frame for frame in frames if "System.Threading.ThreadHelper.ThreadStart()" in frame]
        assert len(started) >= 4
        assert not [frame for frame in frames if frame.startswith("System.Private.CoreLib.dll+")]
        base = next(one.span.start for one in opened.process.modules if one.name == "System.Private.CoreLib.dll")
        image = mapped_image(opened.process.space, base)
        code = native_image(image) if image else None
        assert code is not None
        places = [clr.code_at(base + begin) for part in code.sections for begin in part.begins[::50]]
        named = [place for place in places if place and place.method]
        assert len(named) == len(places) > 500
        assert {place.trust for place in named} == {Trust.EXACT, Trust.DERIVED}  # derived: cold code
