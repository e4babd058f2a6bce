"""Options that several commands have: the same name, the same values, the same order everywhere."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from heapdump.cli import run
from heapdump.commands.common.sorting import ordered, parse_order
from heapdump.errors import WrongUsage
from heapdump.render.text import parse_sizes
from heapdump.render.view import Record
from heapdump.spans import Span
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.samples import page_heap

BASE, SECOND = 0x20000000000, 0x30000000000
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The address of a block of 3,000 bytes in the first of two heaps; the dump is alone in the current folder."""
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    first, second = NtHeapBuilder(base=BASE), NtHeapBuilder(base=SECOND)
    place = first.busy(3000)
    first.busy(100)
    first.free(40)
    first.busy(500)
    first.virtual(0x20001000000, 1_500_000)
    second.busy(60)
    ProcessBuilder().heap(first.build()).heap(second.build()).write(tmp_path / "crash.dmp")
    return place


def ask(capfd: Capture, *arguments: str, code: int = 0) -> Any:
    assert run([*arguments, "--json", "-q"]) == code
    return json.loads(capfd.readouterr().out)["data"]


@pytest.mark.parametrize("heap", [hex(SECOND), "#1", "1"])
def test_a_heap_is_named_by_its_address_or_its_index(heap: str, user: int, capfd: Capture) -> None:
    assert {row["size"] for row in ask(capfd, "blocks", "--heap", heap)} == {60}
    assert sum(row["count"] for row in ask(capfd, "leaks", "--heap", heap)) == 1
    assert ask(capfd, "virt-blocks", "--heap", heap) == []
    assert ask(capfd, "check", "--heap", heap) == []
    assert ask(capfd, "page-heap", "--heap", heap) == []
    assert ask(capfd, "heap", heap)["address"] == hex(SECOND)


@pytest.mark.parametrize("heap", ["#2", "#x"])
def test_a_heap_that_is_not_there_is_an_error_of_usage(heap: str, user: int, capfd: Capture) -> None:
    assert run(["blocks", "--heap", heap]) == 2
    assert "heapdump blocks: error: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("64K..", {1_500_000}), ("..100", {100, 60}), (">3000", {1_500_000}), (">=3000", {3000, 1_500_000}),
        ("<100", {60}), ("<=100", {60, 100}), ("100-3K", {100, 500, 3000}), ("100..3K", {100, 500, 3000}), ("500", {500}),
    ],
)  # fmt: skip
def test_ranges_of_sizes_may_be_open(text: str, sizes: set[int], user: int, capfd: Capture) -> None:
    assert {row["size"] for row in ask(capfd, "blocks", "--size", text)} == sizes
    assert sum(row["count"] for row in ask(capfd, "leaks", "--size", text)) == len(sizes)


def test_what_is_no_range_of_sizes_says_how_to_write_one() -> None:
    assert parse_sizes("4096") == Span(4096, 4097)
    with pytest.raises(WrongUsage, match=r"64K\.\. or \.\.1M"):
        parse_sizes("big")


def test_at_takes_an_address_or_a_span(user: int, capfd: Capture) -> None:
    inside, span = hex(user + 100), f"{BASE:#x}..{user + 1:#x}"
    assert [row["size"] for row in ask(capfd, "blocks", "--at", inside)] == [3000]
    assert [row["address"] for row in ask(capfd, "blocks", "--at", span)] == [hex(user)]
    assert [row["usage"] for row in ask(capfd, "regions", "--at", inside)] == ["Heap"]
    assert len(ask(capfd, "regions", "--at", f"{BASE:#x}..{SECOND + 1:#x}")) > 2
    assert ask(capfd, "check", "--at", inside) == ask(capfd, "check", "--address", inside) == []


@pytest.mark.parametrize(
    ("json_words", "words"),
    [
        (["--state", "MEM_COMMIT"], ["--state", "commit"]), (["--type", "MEM_IMAGE"], ["--type", "image"]),
        (["--protect", "PAGE_READWRITE"], ["--protect", "readwrite"]),
    ],
)  # fmt: skip
def test_words_of_the_json_are_filters(json_words: list[str], words: list[str], user: int, capfd: Capture) -> None:
    found = ask(capfd, "regions", *json_words)
    assert found == ask(capfd, "regions", *words)
    assert 0 < len(found) < len(ask(capfd, "regions"))


def test_page_heap_blocks_have_the_states_of_all_blocks(tmp_path: Path, capfd: Capture) -> None:
    dump = tmp_path / "page.dmp"
    page_heap(dump)
    free = ask(capfd, "page-heap", str(dump), "--state", "free")
    assert {row["state"] for row in free} == {"free"}
    assert ask(capfd, "page-heap", str(dump), "--state", "freed") == free
    assert ask(capfd, "blocks", str(dump), "--state", "freed") == free


def test_numbers_descend_and_names_ascend(user: int, capfd: Capture) -> None:
    def sizes(order: str, *more: str) -> list[int]:
        """Sizes of blocks in an order."""
        return [row["size"] for row in ask(capfd, "blocks", "--sort", order, *more)]

    down = [1_500_000, 3000, 500, 100, 60]
    assert sizes("size") == sizes("-size") == sizes("size:desc") == down
    assert sizes("size", "--reverse") == sizes("size:asc") == down[::-1]
    addresses = [row["address"] for row in ask(capfd, "blocks", "--sort", "address")]
    assert addresses == sorted(addresses, key=lambda one: int(one, 16))
    assert [row["address"] for row in ask(capfd, "blocks", "--sort", "-address")] == addresses[::-1]
    names = [row["name"] for row in ask(capfd, "modules", "--sort", "name")]
    assert names == sorted(names, key=str.lower)


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ("heaps", "busy_bytes"), ("blocks", "size"), ("virt-blocks", "commit_bytes"), ("leaks", "count"), ("regions", "size"),
        ("modules", "size"), ("threads", "id"), ("retained", "size"), ("check", "address"),
    ],
)  # fmt: skip
def test_every_list_can_be_sorted(command: str, field: str, user: int, capfd: Capture) -> None:
    rows = ask(capfd, command, "--sort", f"{field}:asc")
    rows = rows["blocks"] if isinstance(rows, dict) else rows
    values = [int(row[field], 0) if isinstance(row[field], str) else row[field] for row in rows]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("command", "title", "field"),
    [("leaks", "size", "bytes"), ("leaks", "blocks", "count"), ("retained", "retained", "retained_bytes")],
)  # fmt: skip
def test_titles_of_columns_are_fields_to_sort_by(
    command: str, title: str, field: str, user: int, capfd: Capture
) -> None:
    assert ask(capfd, command, "--sort", title) == ask(capfd, command, "--sort", field)


def same(row: Record) -> Record:
    return row


def test_a_field_may_be_shortened_and_nulls_come_last() -> None:
    rows: list[Record] = [
        {"busy_bytes": 1, "busy_blocks": 2},
        {"busy_bytes": None, "busy_blocks": 1},
        {"busy_bytes": 3, "busy_blocks": 1},
    ]
    assert [row["busy_bytes"] for row in ordered(rows, same, "busy-by", is_reversed=False)] == [3, 1, None]
    assert [row["busy_bytes"] for row in ordered(rows, same, "busy_bytes", is_reversed=True)] == [1, 3, None]
    with pytest.raises(WrongUsage, match="there are: busy_bytes, busy_blocks"):
        ordered(rows, same, "busy", is_reversed=False)
    with pytest.raises(WrongUsage, match="size:asc or size:desc"):
        parse_order("size:up")


@pytest.mark.parametrize(
    "arguments",
    [["retained", "--by", "type"], ["retained", "--top", "3"], ["heaps", "--top", "1"], ["leaks", "--top", "1"]],
)
def test_former_names_of_options_are_taken_and_not_shown(arguments: list[str], user: int, capfd: Capture) -> None:
    assert run(arguments) == 0
    capfd.readouterr()
    assert run([arguments[0], "--help"]) == 0
    assert f"{arguments[1]} " not in capfd.readouterr().out


def test_what_filters_leave_out_is_said(user: int, capfd: Capture) -> None:
    assert run(["blocks", "--size", "3000"]) == 0
    assert "1 block, 2.930 kB; left out by options: 4 busy and " in capfd.readouterr().out
    assert run(["leaks", "--size", "3000"]) == 0
    assert "left out by options: 4 blocks, " in capfd.readouterr().out
    assert run(["check", "--heap", "#1"]) == 0
    assert "no damage found: 1 heap with" in capfd.readouterr().out
    assert run(["check", "--at", "0x1234"]) == 0
    assert "no heap has memory there" in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["blocks", "--size", "7"], ["blocks", "--size", "7", "--stat"], ["leaks", "--size", "7"], ["check"], ["page-heap"],
        ["page-heap", "--state", "all"], ["regions", "--at", "0xfffffffffffffff0"], ["virt-blocks", "--heap", "#1"],
        ["leaks", "--size", "7", "--unreachable"], ["search", "nowhere to be found"],
    ],
)  # fmt: skip
def test_an_empty_csv_has_its_header(arguments: list[str], user: int, capfd: Capture) -> None:
    assert run([*arguments, "--format", "csv"]) in (0, 4)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "," in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["blocks"],
        ["blocks", "--stat"],
        ["leaks"],
        ["regions"],
        ["modules"],
        ["threads"],
        ["virt-blocks"],
        ["retained"],
        ["retained", "--group-by", "type"],
        ["search", "MZ"],
    ],
)
def test_the_header_of_an_empty_csv_is_that_of_a_full_one(arguments: list[str], user: int, capfd: Capture) -> None:
    from heapdump.commands.common.fields import fields_of

    assert run([*arguments, "--format", "csv"]) in (0, 4)
    header = next(csv.reader(io.StringIO(capfd.readouterr().out)))
    assert tuple(header) == fields_of(
        " ".join(
            arguments if arguments[-1] in ("--stat",) else [word for word in arguments if word not in ("type", "MZ")]
        )
    )


def test_json_and_another_format_exclude_each_other(user: int, capfd: Capture) -> None:
    assert run(["heaps", "--json", "--format", "csv"]) == 2
    assert "--json and --format csv exclude each other" in capfd.readouterr().err
    assert run(["heaps", "--json", "--format", "json"]) == 0


@pytest.mark.parametrize(
    "size", ["18446744073709551616", ">99999999999999999999", "99999999999999999999..", "1..9" + "9" * 30]
)
def test_sizes_above_all_sizes_are_no_defect(size):
    found = parse_sizes(size)
    assert 0 <= found.start <= found.end < 1 << 64
