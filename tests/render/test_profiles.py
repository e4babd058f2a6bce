"""Profile formats: sums equal the samples', the protocol buffer is read back, UMDH's log is parsed back."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.render.flame import flame
from heapdump.render.profiles import NO_STACK, Sample, SampleFrame, folded, pprof, speedscope
from heapdump.render.umdh import Allocation, log

FRAMES = st.builds(
    SampleFrame, st.sampled_from(["a!f", "a!g", "b;c", "<script>", "ü\u2028"]), st.integers(0, 1 << 40),
    st.sampled_from([None, "a.cpp", r"C:\ü.cpp"]), st.sampled_from([None, 0, 12]),
)  # fmt: skip
SAMPLES = st.lists(
    st.builds(Sample, st.lists(FRAMES, max_size=6).map(tuple), st.integers(1, 1 << 30), st.integers(0, 1 << 45)),
    max_size=12,
)
MODULES = [("a.dll", 0x1000, 0x2000), ("b.dll", 0x10000, 0x20000)]


def names(sample: Sample) -> list[str]:
    return [frame.name for frame in sample.frames] or [NO_STACK]


@given(samples=SAMPLES)
def test_folded_lines_have_the_samples_sums(samples):
    for by_blocks in (False, True):
        lines = [line.rpartition(" ") for line in "".join(folded(samples, by_blocks=by_blocks)).split("\n")[:-1]]
        assert [int(value) for _, _, value in lines] == [s.blocks if by_blocks else s.bytes for s in samples]
        assert [stack.split(";") for stack, _, _ in lines] == [
            [n.replace(";", ":") for n in reversed(names(s))] for s in samples
        ]


def has_members(value: object, required: dict[str, type], optional: dict[str, type]) -> bool:
    """An object with these members of these types and no others."""
    known = required | optional
    if not isinstance(value, dict) or not required.keys() <= value.keys() <= known.keys():
        return False
    return all(isinstance(member, known[name]) and not isinstance(member, bool) for name, member in value.items())


def is_sampled_profile(value: dict[str, Any], frames: int) -> bool:
    """A profile of type "sampled" whose stacks name only frames that are there."""
    types = {
        "type": str,
        "name": str,
        "unit": str,
        "startValue": int,
        "endValue": int,
        "samples": list,
        "weights": list,
    }
    if not has_members(value, types, {}) or value["type"] != "sampled":
        return False
    numbers = [number for stack in value["samples"] for number in stack]
    return (
        value["unit"] in ("bytes", "microseconds", "milliseconds", "nanoseconds", "none", "seconds")
        and all(isinstance(stack, list) and stack for stack in value["samples"])
        and all(type(number) is int and 0 <= number < frames for number in numbers)
        and all(type(weight) is int and weight >= 0 for weight in value["weights"])
        and len(value["samples"]) == len(value["weights"])
        and value["endValue"] - value["startValue"] == sum(value["weights"])
    )


def is_speedscope(document: Any) -> bool:
    """What https://www.speedscope.app/file-format-schema.json demands of sampled profiles, and that its numbers agree."""
    types: dict[str, type] = {"$schema": str, "shared": dict, "profiles": list}
    if not has_members(document, types, {"name": str, "exporter": str, "activeProfileIndex": int}):
        return False
    frames, profiles = document["shared"].get("frames"), document["profiles"]
    return (
        document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
        and document["shared"].keys() == {"frames"} and isinstance(frames, list)
        and all(has_members(frame, {"name": str}, {"file": str, "line": int, "col": int}) for frame in frames)
        and all(is_sampled_profile(profile, len(frames)) for profile in profiles)
        and document.get("activeProfileIndex", 0) in range(len(profiles))
    )  # fmt: skip


@pytest.mark.parametrize(("path", "value"), [
    (("$schema",), "x"), (("shared", "frames", 0, "line"), None), (("shared", "frames", 0, "name"), 5), (("profiles", 0, "unit"), "kB"),
    (("profiles", 0, "weights"), [1, 2]), (("profiles", 0, "samples", 0, 0), 1), (("profiles", 0, "samples", 0, 0), 0.0),
    (("profiles", 1, "endValue"), 4), (("profiles", 1, "type"), "evented"), (("profiles", 0, "name"), None), (("activeProfileIndex",), 2),
])  # fmt: skip
def test_the_rules_themselves_refuse_what_breaks_them(path, value):
    document = json.loads(speedscope([Sample((SampleFrame("f", 1, "f.c", 3),), 3, 30)], "x"))
    assert is_speedscope(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not is_speedscope(document)


@given(samples=SAMPLES)
def test_speedscope_keeps_its_schemas_promises(samples):
    document = json.loads(speedscope(samples, "x"))
    assert is_speedscope(document)
    frames = [frame["name"] for frame in document["shared"]["frames"]]
    for profile, weights in zip(
        document["profiles"], ([s.bytes for s in samples], [s.blocks for s in samples]), strict=True
    ):
        assert profile["weights"] == weights
        assert [[frames[i] for i in stack] for stack in profile["samples"]] == [names(s)[::-1] for s in samples]


def fields(data: bytes) -> dict[int, list[Any]]:
    """Fields of a protocol buffer message by number: integers and bytes."""
    out: dict[int, list[Any]] = defaultdict(list)
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            out[tag >> 3].append(varint())
        else:
            assert tag & 7 == 2
            size = varint()
            out[tag >> 3].append(data[at : at + size])
            at += size
    return out


def packed(data: bytes) -> list[int]:
    out, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            out.append(value)
            value = shift = 0
    return out


@given(samples=SAMPLES)
def test_pprof_is_read_back(samples):
    profile = fields(gzip.decompress(pprof(samples, MODULES, 1_700_000_000)))
    strings = [text.decode() for text in profile[6]]
    assert strings[0] == ""
    types = [(strings[t[1][0]], strings[t[2][0]]) for t in map(fields, profile[1])]
    assert types == [("inuse_objects", "count"), ("inuse_space", "bytes")]
    functions = {f[1][0]: strings[f[2][0]] for f in map(fields, profile[5])}
    locations = {
        p[1][0]: (functions[fields(p[4][0])[1][0]], p[3][0] if p[3] else 0, p[2][0] if p[2] else 0)
        for p in map(fields, profile[4])
    }
    got = [([locations[i][:2] for i in packed(s[1][0])], packed(s[2][0])) for s in map(fields, profile[2])]
    assert got == [([(f.name, f.address) for f in s.frames] or [(NO_STACK, 0)], [s.blocks, s.bytes]) for s in samples]
    spans = {i: (start, end) for i, (_, start, end) in enumerate(MODULES, 1)}
    for _, address, mapping in locations.values():
        assert mapping == next((i for i, (start, end) in spans.items() if start <= address < end), 0)
    assert strings[profile[14][0]] == "inuse_space" and profile[9] == [1_700_000_000_000_000_000]
    assert [strings[m[5][0]] for m in map(fields, profile[3])] == ["a.dll", "b.dll"]


@given(samples=SAMPLES)
def test_the_flame_page_holds_every_byte_and_no_markup_of_the_dump(samples):
    page = flame(samples, "x<y>.dmp")
    assert "x&lt;y&gt;.dmp" in page and "<y>" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    boxes = json.loads(data[1])
    assert boxes[0] == [0, "all", sum(s.bytes for s in samples), sum(s.blocks for s in samples)]
    leaves: Counter[tuple[str, ...]] = Counter()
    path: list[str] = []
    for depth, name, size, _ in boxes:
        path[depth:] = [name]
        leaves[tuple(path[1:])] += size
        if depth:
            leaves[tuple(path[1:-1])] -= size
    truth: Counter[tuple[str, ...]] = Counter()
    for sample in samples:
        truth[tuple(reversed(names(sample)))] += sample.bytes
    assert +leaves == +truth
    assert "http" not in page.replace("http-equiv", "")


def read_log(text: str) -> tuple[dict[int, list[Allocation]], dict[int, tuple[int, ...]]]:
    """Our own reader of UMDH's log: allocations by heap, frames by stack."""
    heaps: dict[int, list[Allocation]] = {}
    stacks: dict[int, tuple[int, ...]] = {}
    heap = last = 0
    for line in text.split("\r\n"):
        if match := re.fullmatch(r"\*- .*Start of data for heap @ ([0-9A-F]+) .*", line):
            heap = int(match[1], 16)
            heaps[heap] = []
        elif match := re.fullmatch(r"([0-9A-F]+) bytes \+ ([0-9A-F]+) at ([0-9A-F]+) by BackTrace([0-9A-F]+)", line):
            size, overhead, address, last = (int(value, 16) for value in match.groups())
            heaps[heap].append(Allocation(address, size, overhead, last))
        elif match := re.fullmatch(r"\t([0-9A-F]+)", line):
            stacks[last] = (*stacks.get(last, ()), int(match[1], 16))
    return heaps, stacks


def test_umdhs_log_is_parsed_back():
    heaps = {
        0x29FB0000: [Allocation(0x43500060, 1000040, 0x38, 7), Allocation(0x43600060, 5, 3, 7)],
        0x10000: [Allocation(0x10040, 1, 15, 9)],
    }
    frames = {7: (0x7FED230483B, 0x7FED22DD81D), 9: (0x401000,), 11: (0x1,)}
    text = "".join(log([(r"C:\app.exe", 0x400000, 0x410000)], heaps.items(), frames))
    assert read_log(text) == (heaps, {7: frames[7], 9: frames[9]})
    assert "//            400000    10000 C:\\app.exe\r\n" in text
    assert "\n" not in text.replace("\r\n", "")


@pytest.mark.parametrize("depth", [5000])
def test_deep_stacks_need_no_recursion(depth):
    deep = Sample(tuple(SampleFrame(f"f{i}", i) for i in range(depth)), 1, 8)
    assert f"f{depth - 1}" in flame([deep], "x")


CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the flame page is not opened")
def test_the_flame_page_opens_in_a_browser_with_the_same_total(tmp_path):
    stack = tuple(SampleFrame(name, i) for i, name in enumerate(("a!inner", "a!middle", "a!outer")))
    page = tmp_path / "flame.html"
    page.write_text(flame([Sample(stack, 3, 3000), Sample(stack[1:], 2, 500)], "x.dmp"), encoding="utf-8")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update"]  # fmt: skip
    command = [str(CHROMIUM), *quiet, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert 'data-bytes="3500"' in shown and 'data-blocks="5"' in shown
    assert shown.count('class="box"') == 4
    assert "3,500 bytes in 5 blocks (100.00 %)" in shown
