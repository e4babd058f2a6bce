"""`struct` on built processes: Windows' structures decoded, lists checked, types of a PDB, what is missing or unknown."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.sample import sample
from heapdump import cli
from heapdump.snapshot import open_dump
from heapdump.spans import Span
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.pdb import TypeStream, member, pdb

HEAP, DATA, GUID = 0x20000000000, 0x5000000, bytes(range(16))
Ask = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    heap = NtHeapBuilder(base=HEAP)
    for size in (96, 40):
        heap.busy(size)
    heap.free(20)
    heap.virtual(0x20100000000, 3_200_000)
    made = ProcessBuilder().heap(heap.build()).thread(7).region(DATA, 0x2000)
    made.module(0x67000000, 0x8000, r"C:\acme\vision.dll", pdb=(r"C:\b\vision.pdb", GUID, 1))
    page = bytearray(0x1000)
    struct.pack_into("<QII2Q", page, 0x100, DATA + 0x180, -6 & 0xFFFFFFFF, 1, 7, 0)  # a critical section, one waiting
    struct.pack_into("<iiQ16s", page, 0x200, -5, 0x21, DATA + 0x210, b"grabber\0")
    made.memory(DATA, bytes(page))
    made.write(tmp_path / "struct.dmp")
    return tmp_path / "struct.dmp"


@pytest.fixture
def ask(dump: Path, capfd: pytest.CaptureFixture[str]) -> Ask:
    """Exit code, and the rows by field."""

    def asked(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        code = cli.run(["struct", str(dump), *arguments, "--json", "-q"])
        return code, {row.get("field", row.get("name")): row for row in json.loads(capfd.readouterr().out)["data"]}

    return asked


def hurt(dump: Path, address: int, data: bytes) -> None:
    with open_dump(dump) as snapshot:
        place = snapshot.process.space.mapped.file_place(Span(address, address + 8))
    raw = bytearray(dump.read_bytes())
    raw[place : (place or 0) + len(data)] = data
    dump.write_bytes(raw)


def test_without_a_name_all_structures_are_listed(ask):
    code, rows = ask()
    assert code == 0 and {"_HEAP", "_PEB", "_TEB", "_RTL_CRITICAL_SECTION"} <= rows.keys()
    assert rows["_HEAP"]["size"] == 704 and "PDB" in rows["_HEAP"]["source"]


def test_without_an_address_members_have_no_value(ask, dump, capfd):
    code, rows = ask("_HEAP")
    assert code == 0 and rows["TotalFreeSize"]["offset"] == 192 and rows["TotalFreeSize"]["value"] is None
    cli.run(["struct", str(dump), "_LIST_ENTRY"])
    assert "_LIST_ENTRY*" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["_HEAP", "HEAP", "heap", "nt!_HEAP", "ntdll!_heap"])
def test_a_heap_with_its_counters_lists_and_header(ask, name):
    code, rows = ask(name, "poi(peb+30)")
    assert code == 0
    assert (rows["Signature"]["value"], rows["Signature"]["meaning"]) == ("0xeeffeeff", "as it must be")
    assert rows["Flags"]["meaning"] == "GROWABLE"
    assert rows["VirtualAllocdBlocks"]["meaning"] == rows["FreeLists"]["meaning"] == "both neighbours point back"
    assert rows["Heap"]["meaning"] == f"heap #0 {HEAP:#x} (nt, process)"
    assert rows["Counters.TotalSegments"]["value"] == "0x1"


def test_an_entry_header_is_decoded(ask, dump, capfd):
    blocks = cli.run(["blocks", str(dump), "--json", "-q", "--state", "all", "--kind", "backend"])
    assert blocks == 0
    for block in json.loads(capfd.readouterr().out)["data"]:
        rows = ask("_HEAP_ENTRY", block["entry"])[1]
        assert int(rows["Size"]["value"], 16) * 16 == block["entry_size"]
        assert rows["Flags"]["meaning"].split()[0] == block["state"]
        if block["state"] == "busy":
            assert block["entry_size"] - int(rows["UnusedBytes"]["value"], 16) == block["size"]
            assert rows["UnusedBytes"]["meaning"] == f"{block['size']:,} bytes were asked for"
    cli.run(["struct", str(dump), "_HEAP_ENTRY", hex(HEAP)])
    assert "its check holds" in capfd.readouterr().out


def test_a_broken_list_and_signature_are_told(ask, dump, capfd):
    rows = ask("_HEAP", hex(HEAP))[1]
    at = rows["VirtualAllocdBlocks"]["address"]
    hurt(dump, int(at, 16), struct.pack("<Q", DATA))
    hurt(dump, HEAP + 0x98, b"\x11\x22\x33\x44")
    rows = ask("_HEAP", hex(HEAP))[1]
    assert "does not point back" in rows["VirtualAllocdBlocks"]["meaning"]
    cli.run(["struct", str(dump), "_HEAP", hex(HEAP), "--no-cache"])
    assert "VirtualAllocdBlocks: 0x5000000 does not point back: 0x0" in capfd.readouterr().out


def test_a_list_entry_alone_is_checked(ask, dump, capfd):
    at = ask("_HEAP", hex(HEAP))[1]["VirtualAllocdBlocks"]["address"]
    rows = ask("_LIST_ENTRY", at)[1]
    assert rows["Flink"]["meaning"].startswith("points back; ") and rows["Blink"]["meaning"].startswith("points back; ")
    assert ask("_LIST_ENTRY", "5000300")[1]["Flink"]["meaning"] == "not linked"
    hurt(dump, int(at, 16), struct.pack("<Q", DATA))
    cli.run(["struct", str(dump), "_LIST_ENTRY", at, "--no-cache"])
    assert "Flink: 0x5000000 does not point back: 0x0" in capfd.readouterr().out


def test_a_critical_section_names_its_owner(ask):
    rows = ask("_RTL_CRITICAL_SECTION", "5000100")[1]
    assert rows["LockCount"]["meaning"] == "owned, 1 waiting"
    assert rows["OwningThread"]["meaning"] == "thread ~0"
    assert rows["DebugInfo"]["meaning"].startswith("<unknown>")


def test_process_parameters_have_their_texts(ask):
    rows = ask("_RTL_USER_PROCESS_PARAMETERS", "poi(peb+20)")[1]
    assert rows["ImagePathName"]["meaning"] == r'"C:\Program Files\App\app.exe"'
    assert rows["ImagePathName.Buffer"]["type"].endswith("*")


def test_the_sample_is_answered_at_80_columns(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "sample.dmp"
    sample().write(path)
    for structure in (["_PEB", "peb"], ["_TEB", "teb"], ["_HEAP", "0x29fb0000"]):
        assert cli.run(["struct", str(path), *structure]) in (0, 4)
        assert max(map(len, capfd.readouterr().out.splitlines())) <= 80


def test_missing_bytes_are_question_marks_and_exit_4(ask, dump, capfd):
    code, rows = ask("_LIST_ENTRY", "5000ff8")
    assert code == 4 and rows["Flink"]["value"] == "0x0" and rows["Blink"]["value"] is None
    assert cli.run(["struct", str(dump), "_HEAP", "1000"]) == 4
    out, err = capfd.readouterr()
    assert "??" in out and "704 bytes of the structure" in err


def test_types_of_a_pdb(ask, tmp_path):
    types = TypeStream()
    kind = types.enumeration("Kind", "camera", "file")
    fields = types.fields(
        member("weight", 0, 0x74), member("low", 4, types.bits(0x75, 1, 0)), member("rest", 4, types.bits(0x75, 7, 1)),
        member("name", 8, types.pointer(0x70)), member("kind", 16, kind), member("tag", 16, types.array(0x70, 8)),
    )  # fmt: skip
    inner = types.structure("Task", 24, fields)
    types.structure("Pair", 48, types.fields(member("both", 0, types.array(inner, 48))))
    (tmp_path / "vision.pdb").write_bytes(pdb(types.build(), GUID, 1))
    code, rows = ask("vision!Task", "5000200", "--symbols", str(tmp_path))
    assert code == 0
    assert (rows["weight"]["value"], rows["low"]["value"], rows["rest"]["value"]) == ("-0x5", "0x1", "0x10")
    assert rows["tag"]["value"] == "grabber" and rows["name"]["meaning"].endswith('"grabber"')
    code, rows = ask("Pair", "5000200", "--symbols", str(tmp_path))
    assert rows["both[0].weight"]["value"] == "-0x5" and rows["both[1].weight"]["offset"] == 24


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["_HAEP"], "did you mean _HEAP"), (["nothing!Foo"], "no module 'nothing'"), (["vision!Foo"], "no structure"),
        (["_HEAP", "zz"], "is not an address"), (["_HEAP", "1", "2"], "not 4 arguments"), (["_HEAP", "--sort", "offset"], "cannot be sorted"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(dump, capfd, arguments, words):
    assert cli.run(["struct", str(dump), *arguments]) == 2
    err = capfd.readouterr().err
    assert words in err and err.count("\n") == 1


def test_every_structure_can_be_read_anywhere(dump, capfd):
    with open_dump(dump) as snapshot:
        names = snapshot.process.views[0].layout.structs
    for name in names:
        for address in ("0", "fffffffffffffff0", hex(HEAP), "5000ff0", "peb"):
            assert cli.run(["struct", str(dump), name, address, "-q", "--count", "2"]) in (0, 4)
    capfd.readouterr()
