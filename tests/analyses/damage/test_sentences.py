"""The verdict on damage in a sentence; a crash in an overwritten object and the overflow that overwrote it are one bug."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from fixtures.memory import LONG_TEXT, TEXT_BYTES
from fixtures.sample import BEFORE, NOW, sample
from heapdump.cli import run
from tests.builders import NtHeapBuilder, ProcessBuilder, SegmentHeapBuilder
from tests.patching import poke

BASE = 0x20000000000


def answer(*arguments: str) -> str:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()):
        run(list(arguments))
    return out.getvalue()


def incidents(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer("triage", str(path), "--json"))["data"]["heap"]["incidents"]
    return found


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.dmp"
    sample(NOW).write(path)
    return path


def test_a_crash_in_an_overwritten_object_is_the_overflow(crashed):
    (one,) = incidents(crashed)
    assert one["bug"] == "heap-buffer-overflow"
    first = int(one["address"], 16)
    block = first - TEXT_BYTES
    assert one["text"].startswith(
        f"right past the end of the {TEXT_BYTES}-byte block {block:#x} of heap 0x28a66b00000:"
    )
    assert "text: " in one["text"]
    records = json.loads(answer("check", str(crashed), "--json"))["data"]
    assert {record["incident"] for record in records} == {1}
    assert {record["kind"] for record in records} >= {"entry_header", "exception"}
    page = answer("triage", str(crashed))
    assert "allocated by visioncore.dll!FormatLabel+" in page
    assert len(LONG_TEXT) > TEXT_BYTES + 40


def test_an_hour_before_nothing_is_wrong(tmp_path):
    sample(BEFORE).write(tmp_path / "sample.dmp")
    assert incidents(tmp_path / "sample.dmp") == []
    assert json.loads(answer("check", str(tmp_path / "sample.dmp"), "--json"))["data"] == []


Damage = Callable[[NtHeapBuilder], tuple[int, bytes]]


def overflow(heap: NtHeapBuilder) -> tuple[int, bytes]:
    """24 bytes of a block of 20 bytes and of what follows."""
    block = heap.busy(24)
    heap.busy(64)
    return block + 24, b"ABCDEFG"


def underflow(heap: NtHeapBuilder) -> tuple[int, bytes]:
    heap.busy(20)
    block = heap.busy(64)
    return block - 8, bytes.fromhex("1000000020000000")


def after_free(heap: NtHeapBuilder) -> tuple[int, bytes]:
    heap.busy(24)
    entry = heap.free(10)
    heap.busy(24)
    return entry + 16, b"A" * 16


@pytest.mark.parametrize(
    ("damage", "bug", "words"),
    [
        (overflow, "heap-buffer-overflow", "right past the end of the 24-byte block"),
        (underflow, "heap-buffer-underflow", "8 bytes before the start of the "),
        (after_free, "heap-use-after-free", "written at the start of the freed"),
    ],
    ids=["overflow", "underflow", "after free"],
)
def test_the_sentence_says_where_the_first_bad_byte_lies(tmp_path, damage: Damage, bug, words):
    heap = NtHeapBuilder(base=BASE)
    for _ in range(5):
        heap.busy(40)
    place = damage(heap)
    heap.busy(40)
    built = poke(ProcessBuilder().heap(heap.build()).build(), place)
    (tmp_path / "a.dmp").write_bytes(built.data)
    (one,) = incidents(tmp_path / "a.dmp")
    assert one["bug"] == bug
    assert words in one["text"] and f"heap {BASE:#x}" in one["text"]


def test_a_size_whose_own_witness_is_overwritten_is_called_a_guess(tmp_path):
    """The last two bytes of the chunk, its count of unused bytes, are text as well."""
    heap = SegmentHeapBuilder(arch="x64", build=19041, base=BASE, seed=4)
    heap.segment(BASE + 0x400000)
    heap.chunks([0x1F8] * 40)
    made = heap.build()
    first, behind = sorted(made.truth.headers)[10:12]
    built = poke(made.add_to(ProcessBuilder(build=19041)).build(), (behind - 8, b"Accept-Encoding: "))
    (tmp_path / "a.dmp").write_bytes(built.data)
    (one,) = incidents(tmp_path / "a.dmp")
    words = f"{behind - first - 16}-byte block {first + 16:#x} (its size is a guess)"
    assert one["bug"] == "heap-buffer-overflow" and words in one["text"]
    page = answer("check", str(tmp_path / "a.dmp"))
    assert "byte busy block (its size is a guess)" in " ".join(page.split()) and "busy vs; its size is a guess" in page
