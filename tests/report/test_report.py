"""The report: its numbers are those of the commands, its text is escaped, it is one small file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from heapdump.cli import run
from heapdump.commands import modules
from heapdump.commands.common.report import flow, gather
from heapdump.commands.common.request import Request
from heapdump.errors import WrongUsage
from heapdump.render.report.bands import drawing
from heapdump.render.report.content import Band, Flow, FlowEnd, Part
from heapdump.render.report.items import table_grid
from heapdump.render.view import Answer, Column, Table
from heapdump.snapshot import Snapshot
from tests.analyses.memory.test_usage import rich
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import without_stream
from tests.samples import SAMPLES

Capture = pytest.CaptureFixture[str]
RECORDED = [
    "oracle/19041.508/leak-ust", "oracle/22000.778/segment-ust", "oracle/2600.5512/pageheap", "asan/asan-llvm21-x64",
    "managed/t31", "real/partial/win10-19042-x64-fastfail", "damaged/silent-200171637553814",
    "real/win7sp1-wow64-fizzbuzz",
]  # fmt: skip


def answer(capfd: Capture, name: str, *arguments: str) -> Any:
    """The data of a command's JSON."""
    capfd.readouterr()
    assert run([name, *arguments, "--json", "-q"]) in (0, 1, 4)
    return json.loads(capfd.readouterr().out)["data"]


def embedded(text: str) -> Any:
    """The data that the page has for its script."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def html_of(dump: Path, capfd: Capture, *more: str) -> str:
    """The page that the command prints."""
    capfd.readouterr()
    assert run(["report", str(dump), *more, "-q"]) in (0, 4)
    return capfd.readouterr().out


@pytest.fixture(
    params=["service", "stacks", "damaged", "page-heap", "segment-heap", "managed", "wow64", "before-vista"]
)
def dump(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A built dump."""
    SAMPLES[request.param](tmp_path / "crash.dmp")
    return tmp_path / "crash.dmp"


def adds_up(box: list[Any]) -> None:
    """Holds that the boxes inside add up to a box."""
    name, committed, size, children = box[0], box[1], box[2], box[6]
    if children:
        assert sum(child[1] for child in children) == committed, name
        assert sum(child[2] for child in children) == size, name
    for child in children:
        adds_up(child)


def equals_the_commands(dump: Path, capfd: Capture) -> None:
    """Holds that the totals of the page are those of `summary`, `leaks` and `retained`."""
    data = embedded(html_of(dump, capfd))
    summary = answer(capfd, "summary", str(dump))
    leaks = answer(capfd, "leaks", str(dump))
    assert data["memory"][1] == summary["in_dump_bytes"]
    adds_up(data["memory"])
    if data["graph"] is not None:
        assert data["graph"][1:3] == [sum(group[unit] for group in leaks) for unit in ("bytes", "count")]
        assert sum(child[1] for child in data["graph"][4]) == data["graph"][1]
    rows = {row["class"]: row for row in answer(capfd, "report", str(dump))["classes"]}
    assert rows["Total used"]["committed_bytes"] == summary["in_dump_bytes"]
    if summary["private_bytes"] is not None:
        assert rows["Total used"]["private_bytes"] == summary["private_bytes"]
        usage = {row["name"]: row["bytes"] for row in summary["usage"]}
        heaps = sum(size for name, size in usage.items() if "Heap" in name)
        assert (rows["Heap"]["bytes"] or 0) == heaps
        assert rows["Heap"]["bytes"] is not None or rows["Heap"]["reason"]
        assert rows["Free"]["bytes"] + rows["Unusable"]["bytes"] == usage.get("Free", 0)


def test_totals_are_those_of_the_commands(dump: Path, capfd: Capture) -> None:
    equals_the_commands(dump, capfd)


@pytest.mark.real
@pytest.mark.parametrize("name", RECORDED)
def test_totals_of_recorded_dumps_are_those_of_the_commands(
    name: str, recorded: Callable[[str], Path], capfd: Capture
) -> None:
    equals_the_commands(recorded(f"{name}.dmp.xz"), capfd)


class _Tags(HTMLParser):
    """Every tag of a page with its attributes, and what refers to something outside."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_one_file_that_loads_nothing(dump: Path, capfd: Capture) -> None:
    text = html_of(dump, capfd)
    assert len(text.encode()) < 2 << 20
    tags = _Tags()
    tags.feed(text)
    assert {tag for tag, _ in tags.found} & {
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "video",
        "audio",
    } == set()
    for tag, values in tags.found:
        assert {name for name in values if name.startswith("on") or name in ("src", "style", "srcset")} == set(), tag
        assert (values.get("href") or "#").startswith("#")
    assert "http" not in text.replace("http-equiv", "")


def test_the_policy_names_the_script_and_the_style_and_nothing_else(dump: Path, capfd: Capture) -> None:
    text = html_of(dump, capfd)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None

    def source(tag: str) -> str:
        body = text.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0]
        return "&#39;sha256-" + base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() + "&#39;"

    assert policy[1].split("; ") == [
        "default-src &#39;none&#39;", f"script-src {source('script')}", f"style-src {source('style')}",
        "base-uri &#39;none&#39;", "form-action &#39;none&#39;",
    ]  # fmt: skip


def test_every_command_of_the_page_runs(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    SAMPLES["stacks"](tmp_path / "crash.dmp")
    monkeypatch.chdir(tmp_path)
    tags = _Tags()
    tags.feed(html_of(Path("crash.dmp"), capfd))
    lines = {values["data-command"] or "" for _, values in tags.found if "data-command" in values}
    assert len(lines) > 10
    for line in lines:
        assert line.startswith(("heapdump ", "gflags ", "procdump ")), line
        if line.startswith("heapdump "):
            assert run([*line.split()[1:], "-q"]) in (0, 1, 4), line


def test_the_page_goes_to_the_file_that_is_named(tmp_path: Path, capfd: Capture) -> None:
    SAMPLES["service"](tmp_path / "crash.dmp")
    text = html_of(tmp_path / "crash.dmp", capfd)
    assert run(["report", str(tmp_path / "crash.dmp"), "-o", str(tmp_path / "page.html"), "-q"]) in (0, 4)
    assert capfd.readouterr().out == ""
    assert (tmp_path / "page.html").read_text(encoding="utf-8").replace(" -o report.html", "") == text.replace(
        " -o report.html", ""
    )


def test_with_an_older_dump_the_page_shows_what_changed(tmp_path: Path, capfd: Capture) -> None:
    SAMPLES["growth"](tmp_path / "growth.dmp")
    old, new = str(tmp_path / "growth.dmp"), str(tmp_path / "growth-later.dmp")
    text = html_of(Path(new), capfd, old)
    assert 'id="changes"' in text
    data = embedded(text)
    before, after = (answer(capfd, "summary", dump) for dump in (old, new))
    difference = answer(capfd, "diff", old, new)
    assert data["memory"][5] == after["in_dump_bytes"] - before["in_dump_bytes"]
    assert data["graph"][3] == difference["reconciliation"]["groups_delta"]
    changes_add_up(data["memory"])
    deltas = {box[0]: box[5] for box in data["memory"][6]}
    usage = {row["name"]: row["delta"] for row in difference["usage"]}
    assert deltas["Heap"] and deltas["Private Data"] == 0x100000
    assert {name for name, delta in deltas.items() if delta} == {"Heap", "Image", "Private Data"}
    assert usage.keys() >= {"Heap", "Image"}
    plugin = next(box for box in data["memory"][6] if box[0] == "Image")
    assert [box[5] for box in plugin[6] if box[0] == "plugin.dll"] == [
        box[1] for box in plugin[6] if box[0] == "plugin.dll"
    ]


def test_bars_of_groups_are_those_of_diff(tmp_path: Path, capfd: Capture) -> None:
    SAMPLES["growth"](tmp_path / "growth.dmp")
    old, new = str(tmp_path / "growth.dmp"), str(tmp_path / "growth-later.dmp")
    text = html_of(Path(new), capfd, old)
    rows = re.findall(
        r'<div class="trow"><span class="fx">(.*?)</span>.*?title="([\d,]+) bytes">.*?title="([\d,]+) bytes">',
        text,
        re.DOTALL,
    )
    shown = [(name, int(before.replace(",", "")), int(now.replace(",", ""))) for name, before, now in rows]
    groups = answer(capfd, "diff", old, new)["groups"]
    assert len(shown) > 1
    assert shown == [(one["key"], one["old_bytes"], one["new_bytes"]) for one in groups][:12]


def test_bands_tie_every_busy_byte_of_a_holder_to_a_type(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAMPLES["stacks"](dump := tmp_path / "crash.dmp")
    made: list[Flow] = []

    def flow_of(request: Request, snapshot: Snapshot) -> Flow | None:
        made.extend(filter(None, [flow.flow_of(request, snapshot)]))
        return made[0]

    monkeypatch.setattr(gather, "flow_of", flow_of)
    assert "The same as a list" in html_of(dump, capfd)
    figure = made[0]
    held = answer(capfd, "leaks", str(dump), "--group-by", "owner")
    kinds = answer(capfd, "leaks", str(dump), "--group-by", "structure")
    assert [(f"held by {one.name}", one.bytes) for one in figure.holders[:8]] == [
        (g["key"], g["bytes"]) for g in held[:8]
    ]
    assert [(one.name, one.bytes) for one in figure.types[:8]] == [(g["key"], g["bytes"]) for g in kinds[:8]]
    total = sum(group["bytes"] for group in held)
    assert sum(one.bytes for one in figure.holders) == sum(one.bytes for one in figure.bands) == total
    for place, one in enumerate(figure.holders):
        assert sum(band.bytes for band in figure.bands if band.holder == place) == one.bytes
    for place, one in enumerate(figure.types):
        assert sum(band.bytes for band in figure.bands if band.type == place) == one.bytes
    drawn = drawing(figure)
    assert len(drawn.ribbons) == len(figure.bands)
    bottom = max(one.y + one.height for one in (*drawn.holders, *drawn.types))
    assert all(one.height > 0 for one in (*drawn.holders, *drawn.types)) and bottom <= drawn.height


def changes_add_up(box: list[Any]) -> None:
    """Holds that the changes inside add up to that of a box."""
    if box[6]:
        assert sum(child[5] for child in box[6]) == box[5], box[0]
    for child in box[6]:
        changes_add_up(child)


def test_a_dump_compared_with_itself_did_not_change(tmp_path: Path, capfd: Capture) -> None:
    SAMPLES["stacks"](tmp_path / "crash.dmp")
    data = embedded(html_of(tmp_path / "crash.dmp", capfd, str(tmp_path / "crash.dmp")))

    def deltas(node: list[Any], delta: int, children: int) -> set[int]:
        return {node[delta]}.union(*(deltas(child, delta, children) for child in node[children]))

    assert deltas(data["memory"], 5, 6) == {0}
    assert deltas(data["graph"], 3, 4) == {0}


def test_without_a_memory_map_the_page_counts_the_dump_and_says_so(tmp_path: Path, capfd: Capture) -> None:
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    built = ProcessBuilder().heap(heap.build()).build()
    (tmp_path / "crash.dmp").write_bytes(without_stream(built, 16).data)
    text = html_of(tmp_path / "crash.dmp", capfd)
    assert "The dump has no memory map" in text
    rows = {row["class"]: row for row in answer(capfd, "report", str(tmp_path / "crash.dmp"))["classes"]}
    assert rows["Free"]["bytes"] is None and rows["Free"]["reason"]
    assert rows["Total used"]["private_bytes"] is None


def test_the_commands_that_are_asked_get_the_options_of_the_report(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAMPLES["service"](tmp_path / "crash.dmp")
    seen: list[Request] = []
    listed = modules._list

    def record(request: Request, snapshot: Snapshot) -> Answer:
        seen.append(request)
        return listed(request, snapshot)

    monkeypatch.setattr(modules, "_list", record)
    assert run(["report", str(tmp_path / "crash.dmp"), "--symbols", str(tmp_path), "--no-cache", "--all", "-q"]) in (
        0,
        4,
    )
    assert [(one.symbol_path, one.use_index, one.limit) for one in seen] == [(str(tmp_path), False, None)]


def test_the_dominator_tree_is_that_of_retained(tmp_path: Path, capfd: Capture) -> None:
    SAMPLES["stacks"](tmp_path / "crash.dmp")
    rows = re.findall(
        r'tabindex="0">(0x[0-9a-f]+)</span><span class="type">(.*?)</span><span class="n" title="([\d,]+) bytes">.*?</span>'
        r'<span class="n" title="([\d,]+) bytes">',
        html_of(tmp_path / "crash.dmp", capfd),
    )
    shown = {address: (int(size.replace(",", "")), int(held.replace(",", ""))) for address, _, size, held in rows}
    blocks = answer(capfd, "retained", str(tmp_path / "crash.dmp"))["blocks"]
    assert len(blocks) > 1
    assert [shown[one["address"]] for one in blocks] == [(one["size"], one["retained_bytes"]) for one in blocks]
    types = {address: name for address, name, _, _ in rows}
    assert all(types[one["address"]] == one["type"]["name"] for one in blocks if one["type"])


def test_a_redacted_page_holds_no_contents_and_no_names_of_people(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "Users" / "alice").mkdir(parents=True)
    dump = tmp_path / "Users" / "alice" / "crash.dmp"
    process = rich()
    process.region(0x28A90000000, 0x1000).memory(0x28A90000000, b'it\'s "secret" \\"x'.ljust(0x1000, b"\0"))
    process.write(dump)
    plain, redacted = html_of(dump, capfd), html_of(dump, capfd, "--redact")
    assert all(word in plain for word in ("hello world", "secret", "alice"))
    assert not any(word in redacted for word in ("hello world", "secret", "alice"))
    assert embedded(plain)["memory"][1] == embedded(redacted)["memory"][1]


def test_a_command_that_refuses_is_said_and_the_page_goes_on(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAMPLES["service"](tmp_path / "crash.dmp")

    def refuse(request: Request, snapshot: Snapshot) -> Answer:
        raise WrongUsage("these modules are <b>not</b> for you")

    monkeypatch.setattr(modules, "_list", refuse)
    text = html_of(tmp_path / "crash.dmp", capfd)
    assert "these modules are &lt;b&gt;not&lt;/b&gt; for you" in text
    assert 'id="dump"' in text


def test_a_third_dump_is_refused(tmp_path: Path, capfd: Capture) -> None:
    SAMPLES["service"](tmp_path / "crash.dmp")
    dump = str(tmp_path / "crash.dmp")
    assert run(["report", dump, dump, dump]) == 2
    assert "heapdump diff" in capfd.readouterr().err


def test_a_label_of_the_bands_keeps_the_whole_name_of_a_class() -> None:
    """`class vision::Frame (visioncore.dll)` was labelled `class vision`."""
    end = FlowEnd("class vision::Frame (visioncore.dll)", 100)
    figure = drawing(Flow((end,), (FlowEnd("text (ASCII): 0x20", 100),), (Band(0, 0, 100),), "", ""))
    assert figure.holders[0].label.startswith("class vision::Frame (visioncore.dll) ")
    assert figure.types[0].label.startswith("text (ASCII) ")


def test_a_phone_keeps_the_column_that_decides() -> None:
    columns: tuple[Column[str], ...] = (
        Column("Size", lambda row: "21.97 MB", "bytes", right=True),
        Column("Heap", lambda row: "0x28a65b00000", "of them", rank=1),
        Column("Allocated by", lambda row: "visioncore.dll!AllocImage ← CopyImage", "decides", flexible=20, wraps=True),
    )
    grid = table_grid(Table(columns, ["one", "two"]), Part("", "", ()))
    assert [column.title for column in grid.columns] == ["Size", "Heap", "Allocated by"]
    assert (grid.wide, grid.wide_only) == ((False, True, False), "Heap")
    assert [cell.css for cell in grid.rows[0].cells] == ["n", "w", "fx"]


def tiles(text: str) -> list[tuple[str, str]]:
    """(number, label) of the tiles at the top of a page."""
    return re.findall(r"<li data-command[^>]*><b>([^<]*)</b><span>([^<]*)</span></li>", text)


def test_a_tile_of_one_is_no_plural(tmp_path: Path, capfd: Capture) -> None:
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(200)
    ProcessBuilder().heap(heap.build()).thread(7, ip=0x401000).write(tmp_path / "crash.dmp")
    found = tiles(html_of(tmp_path / "crash.dmp", capfd))
    assert ("1", "heap") in found and ("1", "thread") in found and ("1", "busy block") in found
    assert ("0", "errors found") in found


def test_where_no_heap_could_be_checked_no_tile_counts_errors(tmp_path: Path, capfd: Capture) -> None:
    ProcessBuilder().thread(7, ip=0x401000).write(tmp_path / "crash.dmp")
    text = html_of(tmp_path / "crash.dmp", capfd)
    assert ("–", "no heap checked") in tiles(text)
    assert "errors found" not in text and "<h3>Groups</h3>" not in text and "How full each segment" not in text
