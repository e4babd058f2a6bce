"""`block --fields`: each word, the containers, and the type of a block."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from heapdump.cli import cli
from tests.analyses.types.test_nodes import Containers
from tests.builders import ProcessBuilder
from tests.patching import poke

TIME = 132_000_000_000_000_000


@pytest.fixture
def dump(tmp_path: Path) -> tuple[str, int, Containers]:
    """(path of a dump, address of an object with members, its blocks)."""
    blocks = Containers("x64")
    members = blocks.words(640, 0, TIME) + struct.pack("<d", 2.5) + b"camera A" + blocks.words(3 | 480 << 32)
    thing = blocks.add(members + blocks.vector(96, 48) + blocks.tree(9) + b"tail")
    path = tmp_path / "fields.dmp"
    path.write_bytes(poke(ProcessBuilder().heap(blocks.heap.build()).build(), *blocks.late).data)
    return str(path), thing, blocks


def record(path: str, address: int) -> dict[str, object]:
    result = CliRunner().invoke(cli, ["block", path, hex(address), "--fields", "--json", "--no-cache"])
    assert result.exit_code in (0, 4), result.output
    data: dict[str, object] = json.loads(result.stdout)["data"]
    return data


def test_each_word_is_decoded(dump):
    path, thing, _ = dump
    fields = record(path, thing)["fields"]
    assert isinstance(fields, list)
    found = [(one["offset"], one["kind"], one["decoded"]) for one in fields[:6]]
    assert found == [
        (0, "number", "640"), (8, "zero", ""), (16, "time", "2019-04-17 18:40:00 UTC"), (24, "float", "2.5"),
        (32, "text", '"camera A"'), (40, "number", "3, 480"),
    ]  # fmt: skip
    assert [one["kind"] for one in fields[6:]] == ["pointer", "pointer", "pointer", "pointer", "number", "other"]
    assert fields[6]["points_to"]["kind"] == "block"
    assert fields[-1]["preview"] == b"tail".hex()


def test_containers_and_what_holds_an_element(dump):
    path, thing, _ = dump
    data = record(path, thing)
    containers = data["containers"]
    assert isinstance(containers, list)
    told = [
        (one["name"], one["offset"], one["elements"], one["used_bytes"], one["capacity_bytes"]) for one in containers
    ]
    assert told == [("std::vector", 48, None, 48, 96), ("std::map or set", 72, 9, None, None)]
    buffer, head = (int(one["address"], 16) for one in containers)
    assert record(path, buffer)["held_by"] == [{"name": "std::vector", "owner": hex(thing), "offset": 48}]
    held = record(path, head)
    assert held["held_by"] == [{"name": "std::map or set", "owner": hex(thing), "offset": 72}]
    assert held["type"] == {"name": "node of a std::map or set", "trust": "guess"}


def test_the_page_shows_words_and_containers_and_redacts_them(dump):
    path, thing, _ = dump
    page = CliRunner().invoke(cli, ["block", path, hex(thing), "--fields", "--no-cache"]).stdout
    assert "holds std::map or set at +0x48: 9 elements, head" in page
    assert "holds std::vector at +0x30: 48 of 96 bytes used, buffer" in page
    assert '"camera A"' in page
    for more in ([], ["--json"]):
        hidden = (
            CliRunner().invoke(cli, ["block", path, hex(thing), "--fields", "--no-cache", "--redact", *more]).stdout
        )
        assert "camera A" not in hidden and b"camera A".hex() not in hidden
        assert "std::map or set" in hidden
