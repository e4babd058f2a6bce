"""`modules NAME`: version texts, headers, sections, imports with hooks, exports, texts, inline hooks, unlisted images."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heapdump import cli
from heapdump.analyses.by_hand.images import unlisted_images
from tests.builders import ProcessBuilder
from tests.builders.image_header import image_header
from tests.builders.image_tables import ImageTables
from tests.patching import poke

APP, KERNEL, NTDLL, DETOURS, CRT = 0x140000000, 0x7FF800000000, 0x7FF900000000, 0x7FF700000000, 0x7FF600000000
PRIVATE, HIDDEN = 0x5000000, 0x6000000
TABLES, CODE, DIRECTORIES = 0x2000, 0x1000, 0x98 + 112
Rows = list[dict[str, Any]]
SYSTEM = "C:\\Windows\\System32\\"


def app() -> ImageTables:
    """Imports: sound ones, a forwarded one, an API set, one of Detours, one in private memory, an ordinal."""
    tables = ImageTables(TABLES)
    tables.imports({
        "KERNEL32.dll": {
            "CreateFileW": KERNEL + CODE, "HeapAlloc": NTDLL + CODE, "VirtualAlloc": DETOURS + CODE, "#7": KERNEL + CODE + 8,
            "MapViewOfFile": PRIVATE + 0x10, "Sleep": NTDLL + CODE + 0x20,
        },
        "api-ms-win-core-heap-l1-1-0.dll": {"HeapFree": NTDLL + CODE + 0x40, "HeapSize": DETOURS + CODE},
        "api-ms-win-crt-heap-l1-1-0.dll": {"calloc": CRT + CODE, "strdup": CRT + CODE + 8},
        "ntdll.dll": {"NtClose": DETOURS + CODE + 0x10},
    })  # fmt: skip
    tables.version({"CompanyName": "Acme Vision", "FileDescription": "Inspection", "ProductName": "Inspector"})
    return tables


def kernel() -> ImageTables:
    tables = ImageTables(TABLES)
    names = {
        "CreateFileW": CODE,
        "Sleep": CODE + 0x10,
        "VirtualAlloc": CODE + 0x20,
        "Patched": CODE + 0x30,
        "Far": CODE + 0x40,
    }
    tables.exports("KERNEL32.dll", names, {"HeapAlloc": "NTDLL.RtlAllocateHeap"})
    return tables


CODE_OF_KERNEL = bytearray(0x80)
CODE_OF_KERNEL[0x30:0x35] = b"\xe9" + struct.pack("<i", 0x2000)  # inside the module
CODE_OF_KERNEL[0x40:0x4E] = b"\xff\x25\0\0\0\0" + struct.pack("<Q", DETOURS + CODE + 0x33)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    made = ProcessBuilder().module(APP, 0x8000, r"C:\acme\inspector.exe").thread(7)
    made.module(KERNEL, 0x8000, f"{SYSTEM}kernel32.dll").module(NTDLL, 0x8000, f"{SYSTEM}ntdll.dll")
    made.module(DETOURS, 0x8000, r"C:\acme\detoured.dll")
    pokes = []
    made.module(CRT, 0x8000, r"C:\acme\ucrtbase.dll")
    crt = ImageTables(TABLES)
    crt.exports("ucrtbase.dll", {"_o_calloc": CODE, "calloc": CODE}, {})
    for base, tables in ((APP, app()), (KERNEL, kernel()), (CRT, crt)):
        made.memory(base + TABLES, bytes(tables.data))
        pokes.append((base + DIRECTORIES, tables.directory_bytes()))
    made.memory(KERNEL + CODE, bytes(CODE_OF_KERNEL))
    made.region(PRIVATE, 0x1000, protect=0x40).memory(PRIVATE, b"open the gates\0".ljust(0x1000, b"\0"))
    hidden = ImageTables(TABLES)
    hidden.exports("payload.dll", {"run": CODE}, {})
    header = bytearray(image_header("x64", 0x8000, 0x5F000001))
    header[DIRECTORIES : DIRECTORIES + 128] = hidden.directory_bytes()
    made.region(HIDDEN, 0x8000, protect=0x40).memory(HIDDEN, bytes(header)).memory(HIDDEN + TABLES, bytes(hidden.data))
    path = tmp_path / "modules.dmp"
    path.write_bytes(poke(made.build(), *pokes).data)
    return path


@pytest.fixture
def ask(dump: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Rows]:
    """Rows."""

    def asked(*arguments: str) -> Rows:
        assert cli.run(["modules", str(dump), *arguments, "--json", "-q"]) in (0, 4)
        rows: Rows = json.loads(capfd.readouterr().out)["data"]
        return rows

    return asked


def test_imports_with_their_targets_and_hooks(ask):
    (found,) = ask("inspector", "--imports")
    assert {one["name"]: one["hook"] for one in found["imports"]} == {
        "CreateFileW": False, "HeapAlloc": False, "VirtualAlloc": True, "#7": False, "MapViewOfFile": True, "Sleep": True,
        "HeapFree": False, "HeapSize": True, "calloc": False, "strdup": True, "NtClose": True,
    }  # fmt: skip
    by_name = {one["name"]: one for one in found["imports"]}
    assert by_name["VirtualAlloc"]["target_name"] == f"detoured.dll+{CODE:#x}"
    assert by_name["CreateFileW"]["target_name"] == "kernel32.dll!CreateFileW"
    assert (by_name["NtClose"]["dll"], by_name["NtClose"]["module"]) == ("ntdll.dll", "detoured.dll")
    assert [one["function"] for one in found["hooks"]] == [
        "KERNEL32.dll!VirtualAlloc", "KERNEL32.dll!MapViewOfFile", "KERNEL32.dll!Sleep",
        "api-ms-win-core-heap-l1-1-0.dll!HeapSize", "api-ms-win-crt-heap-l1-1-0.dll!strdup", "ntdll.dll!NtClose",
    ]  # fmt: skip


def test_imports_that_allocate_map_protect_or_load(ask):
    (found,) = ask("inspector", "--imports", "memory")
    assert {one["name"] for one in found["imports"]} == {
        "HeapAlloc",
        "VirtualAlloc",
        "MapViewOfFile",
        "HeapFree",
        "HeapSize",
        "calloc",
    }


def test_version_texts_headers_and_sections(ask):
    (found,) = ask("inspector.exe", "--sections")
    assert found["versions"][0] == {"name": "CompanyName", "value": "Acme Vision"}
    assert (found["headers"]["machine"], found["headers"]["subsystem"]) == ("x64", "console")
    assert [(one["name"], one["access"]) for one in found["sections"]] == [(".text", "r-x"), (".data", "rw-")]
    assert "imports" not in found and "exports" not in found


def test_exports_forwarders_and_inline_hooks(ask):
    (found,) = ask("kernel32", "--exports")
    assert {one["name"]: one["forwarder"] or one["address"] for one in found["exports"]} == {
        "CreateFileW": hex(KERNEL + CODE), "Sleep": hex(KERNEL + CODE + 0x10), "VirtualAlloc": hex(KERNEL + CODE + 0x20),
        "Patched": hex(KERNEL + CODE + 0x30), "Far": hex(KERNEL + CODE + 0x40), "HeapAlloc": "NTDLL.RtlAllocateHeap",
    }  # fmt: skip
    assert [(one["kind"], one["function"], one["target_name"], one["trust"]) for one in found["hooks"]] == [
        ("inline", "Far", "detoured.dll+0x1033", "guess")
    ]


def test_an_inline_hook_is_confirmed_or_refuted_by_the_file(ask, tmp_path):
    for code, trust in ((bytes(0x80), ["derived"]), (bytes(CODE_OF_KERNEL), [])):
        header = bytearray(image_header("x64", 0x8000, 0x5F000000))
        header[DIRECTORIES : DIRECTORIES + 128] = kernel().directory_bytes()
        rows = 0x98 + 0xF0
        struct.pack_into("<I", header, rows + 20, 0x1000)
        data = bytes(header).ljust(0x1000, b"\0") + code.ljust(0x1000, b"\0") + bytes(kernel().data)
        (tmp_path / "kernel32.dll").write_bytes(data.ljust(0x8000, b"\0"))
        assert [one["trust"] for one in ask("kernel32", "--image-path", str(tmp_path))[0]["hooks"]] == trust


def test_the_list_says_which_modules_are_hooked_and_by_whom(ask, dump, capfd):
    assert [(row["name"], len(row["hooks"])) for row in ask() if row["hooks"]] == [
        ("inspector.exe", 6),
        ("kernel32.dll", 1),
    ]
    assert cli.run(["modules", str(dump)]) == 0
    *hooks, blank, command = capfd.readouterr().out.partition("\nHooks")[2].splitlines()[2:]
    assert (blank, command) == ("", f"each of them → heapdump modules {dump} inspector.exe")
    assert [line.split(maxsplit=3)[:3] for line in hooks] == [
        ["inspector.exe", "3", "detoured.dll"], ["inspector.exe", "1", "no"], ["inspector.exe", "1", "ntdll.dll"],
        ["inspector.exe", "1", "ucrtbase.dll"], ["kernel32.dll", "1", "detoured.dll"],
    ]  # fmt: skip


def test_an_image_in_no_list_is_found_by_its_headers(ask, dump, capfd):
    rows = ask()
    assert [(row["name"], row["address"]) for row in rows if not row["listed"]] == [("payload.dll", hex(HIDDEN))]
    assert ask("payload")[0]["exports"][0]["name"] == "run"
    cli.run(["modules", str(dump), hex(HIDDEN + 5)])
    assert "in no module list" in capfd.readouterr().out


def test_an_image_in_no_list_is_found_behind_many_other_allocations(open_built):
    process = ProcessBuilder(build=19041)
    for i in range(65_600):
        process.region(0x20000000000 + i * 0x10000, 0x1000)
    place = 0x28000000000
    process.region(place, 0x1000).memory(place, image_header("x64", 0x8000, 0x5F000001))
    with open_built(process) as snapshot:
        assert [module.span.start for module, _ in unlisted_images(snapshot.process)] == [place]


def test_texts_of_a_module(ask, dump):
    texts = [one["text"] for one in ask("kernel32", "--strings")[0]["strings"]]
    assert "VirtualAlloc" in texts and "NTDLL.RtlAllocateHeap" in texts
    assert "Acme Vision" in [one["text"] for one in ask("inspector", "--strings")[0]["strings"]]


@pytest.mark.parametrize("width", [80, 160])
def test_the_page_names_company_and_hooks(dump, capfd, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.run(["modules", str(dump), "inspector"]) == 0
    out = capfd.readouterr().out
    assert "CompanyName: Acme Vision" in out and "11 imports of 4 DLLs, 0 exports, 6 hooks" in out
    assert max(len(line) for line in out.splitlines()) <= width
    assert cli.run(["modules", str(dump), "--imports", "memory", "--exports"]) == 0
    assert "Imports that allocate, map, protect or load" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nothing"], "no module 'nothing'"), (["a", "b"], "not 3 arguments"), (["8000"], "no module '8000'")],
)
def test_what_cannot_be_is_said_in_one_line(dump, capfd, arguments, words):
    assert cli.run(["modules", str(dump), *arguments]) == 2
    err = capfd.readouterr().err
    assert words in err and err.count("\n") == 1


def test_damaged_tables_never_raise(dump, capfd):
    import random

    data, chance = dump.read_bytes(), random.Random(5)
    places = [data.index(one) for one in (bytes(app().data)[:64], bytes(kernel().data)[:64])]
    for _ in range(40):
        hurt = bytearray(data)
        for place in places:
            for _ in range(chance.choice((2, 20))):
                hurt[place + chance.randrange(0x400)] = chance.choice((0, 0xFF, chance.randrange(256)))
        dump.write_bytes(hurt)
        for arguments in (["inspector", "--imports", "--strings"], ["kernel32", "--exports"], ["inspector"]):
            assert cli.run(["modules", str(dump), *arguments, "--json", "-q", "--no-cache"]) in (0, 4)
    capfd.readouterr()


def test_the_names_of_hooked_functions_are_whole_at_80_columns(dump, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.run(["modules", str(dump)]) == 0
    hooks = capfd.readouterr().out.partition("\nHooks")[2].partition("each of them")[0]
    assert "…" not in hooks
    names = ["VirtualAlloc", "HeapAlloc"]
    assert any(name in hooks for name in names)
