"""The table of owners, and how it is asked. A new owner is a row here (recipe: CONTRIBUTING.md).

Surer patterns win over weaker ones, and of equal ones the later row. `source` says where the pattern was seen, or that
it is known from public descriptions only; docs/reference/owners.md has the same table for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from heapdump.memory.regions import RegionTable
from heapdump.process.model import Process
from heapdump.runtimes.owners import contents, mapped_files, reservations
from heapdump.runtimes.owners.owner import FoundOwner, NamedOwner, OwnerRow, Program, Strength
from heapdump.runtimes.owners.presence import Presence
from heapdump.runtimes.owners.reservations import GIB, KIB, MIB
from heapdump.runtimes.owners.unknown import UnknownMemory
from heapdump.trust import Trust

PUBLIC, ELECTRON = "public descriptions", "recorded: Electron on Windows 11 25H2"
_MOST_PIECES = 1 << 16
_ENDLESS = 1 << 64

V8 = Program(
    ("node.exe", "node.dll", "electron.exe", "libnode*.dll", "v8.dll", "v8_libbase.dll", "chrome.dll", "msedge.dll",
     "libcef.dll", "nw.dll", "deno.exe"),
    ("*@v8@@*", "napi_create_object", "node_api_*"), (b"Fatal JavaScript ", b"CALL_AND_RETRY_LAST"),
)  # fmt: skip
CHROME = Program(
    ("chrome.dll", "msedge.dll", "electron.exe", "libcef.dll", "nw.dll", "chrome.exe", "msedgewebview2.exe"),
    (), (b"PartitionAlloc", b"partition_alloc"),
)  # fmt: skip
GO = Program((), (), (b"\xff Go buildinf:", b'Go build ID: "'))
MIMALLOC = Program(("mimalloc*.dll",), ("mi_malloc", "mi_heap_malloc"), (b"mimalloc: warning: ", b"mimalloc: error: "))
JEMALLOC = Program(
    ("mozglue.dll", "jemalloc*.dll"), ("je_malloc", "moz_arena_malloc", "_rjem_malloc"), (b"<jemalloc>",)
)
TCMALLOC = Program(("*tcmalloc*.dll",), ("tc_malloc", "MallocExtension_*"), (b"tcmalloc: large alloc",))
UNREAL = Program(
    ("unrealeditor*", "ue4editor*", "ue4game*", "unrealgame*", "*-win64-shipping.exe", "*-win64-test.exe"),
    (), (b"FMallocBinned", "FMallocBinned".encode("utf-16-le")),
)  # fmt: skip
PYTHON = Program(("python3*.dll", "python2*.dll", "libpython3*.dll"), ("PyObject_Malloc",), ())
DRIVERS = (
    "nvwgf2um*.dll", "nvd3dum*.dll", "nvoglv*.dll", "nvcuda*.dll", "nvopencl*.dll", "nvldumd*.dll", "nvgpucomp*.dll",
    "igd*um*.dll", "igc*.dll", "ig*icd*.dll", "igvk*.dll", "amdxx*.dll", "amdxc*.dll", "atidxx*.dll", "atiumd*.dll",
    "atio*xx.dll", "amdvlk*.dll", "amdihk*.dll", "qcdx*.dll",
)  # fmt: skip
DIRECTX = (
    "d3d9.dll", "d3d10*.dll", "d3d11.dll", "d3d12.dll", "d3d12core.dll", "dxgi.dll", "dxcore.dll", "opengl32.dll",
    "vulkan-1.dll", "d3dcompiler*.dll", "d2d1.dll",
)  # fmt: skip
OPENJ9 = ("j9vm*.dll", "j9gc*.dll", "j9jit*.dll", "j9prt*.dll")


def _jit(name: str, program: Program) -> OwnerRow:
    return OwnerRow(f"{name} JIT code", program, reservations.executable, PUBLIC)


def _pointed(name: str, modules: tuple[str, ...]) -> OwnerRow:
    return OwnerRow(name, Program(modules), contents.pointed_from(modules), PUBLIC)


def _file(words: str, test: mapped_files.Test, source: str = PUBLIC) -> OwnerRow:
    return OwnerRow(f"mapped {words}", None, mapped_files.file_of(test), source)


ROWS: tuple[OwnerRow, ...] = (
    _pointed("DirectX", DIRECTX),
    _pointed("GPU driver", DRIVERS),
    OwnerRow("GPU driver", Program((*DRIVERS, *DIRECTX)), reservations.write_combined, PUBLIC),
    _pointed("OpenJ9 (Java)", OPENJ9),
    OwnerRow("tcmalloc spans", TCMALLOC, reservations.multiples(MIB, alignment=64 * KIB, fewest=1), PUBLIC),
    OwnerRow("jemalloc chunks", JEMALLOC, reservations.multiples(MIB, alignment=MIB, fewest=1), PUBLIC),
    OwnerRow("jemalloc chunks", JEMALLOC, contents.mozjemalloc_chunks, PUBLIC),
    OwnerRow("Go heap arenas", GO, reservations.go_arenas, PUBLIC),
    OwnerRow("Python object arenas", PYTHON, contents.python_arenas, PUBLIC),
    OwnerRow("Unreal binned allocator", UNREAL, contents.unreal_pools, PUBLIC),
    OwnerRow("mimalloc arenas", MIMALLOC, reservations.reserved(GIB, _ENDLESS, 32 * MIB), PUBLIC),
    OwnerRow("mimalloc segments", MIMALLOC, contents.mimalloc_segments, PUBLIC),
    _jit("LuaJIT", Program(("lua51.dll", "luajit*.dll"), ("luaJIT_*",), (b"LuaJIT 2.",))),
    _jit("Mono", Program(("mono-2*.dll", "monosgen*.dll", "libmono*.dll"), ("mono_jit_init",))),
    _jit("SpiderMonkey", Program(("xul.dll", "mozjs*.dll"), ("JS_NewContext",))),
    _jit("Chakra", Program(("chakra.dll", "chakracore.dll", "jscript9.dll"))),
    _jit("JavaScriptCore", Program(("javascriptcore.dll", "webkit*.dll"), ("JSEvaluateScript",))),
    _jit("WebAssembly", Program(("wasmtime*.dll", "wasmer*.dll"), ("wasm_engine_new",))),
    _jit("OpenJ9 (Java)", Program(OPENJ9)),
    _jit("PHP", Program(("php8*.dll", "php_opcache.dll"))),
    _jit("Erlang", Program(("beam.smp.dll",))),
    _jit("Julia", Program(("libjulia*.dll",))),
    _jit("GPU driver", Program(DRIVERS)),
    _jit("V8", V8),
    OwnerRow("V8 code range", V8, reservations.code_range, ELECTRON),
    OwnerRow("V8 heap pages", V8, reservations.allocations(256 * KIB, 256 * KIB, 256 * KIB, Strength.HINT), PUBLIC),
    OwnerRow("V8 heap pages", V8, contents.v8_pages, PUBLIC),
    OwnerRow("V8 WebAssembly memory", V8, reservations.reserved(8 * GIB, 13 * GIB, 64 * KIB), PUBLIC),
    OwnerRow("V8 sandbox", V8, reservations.reserved(256 * GIB, _ENDLESS, 4 * GIB), ELECTRON),
    OwnerRow("V8 heap cage", V8, reservations.reserved(4 * GIB, 8 * GIB, 4 * GIB), PUBLIC),
    OwnerRow("V8 heap cage", V8, reservations.allocations(4 * GIB, 4 * GIB, 4 * GIB), ELECTRON),
    OwnerRow("V8 trusted range", V8, reservations.allocations(GIB, GIB, 4 * GIB), ELECTRON),
    OwnerRow("V8 pointer tables", V8, reservations.pointer_tables, ELECTRON),
    OwnerRow("Chromium pools", CHROME, reservations.allocations(16 * GIB, 16 * GIB, 64 * KIB, Strength.HINT), ELECTRON),
    OwnerRow("Chromium pools", CHROME, reservations.allocations(16 * GIB, 16 * GIB, 16 * GIB), ELECTRON),
    OwnerRow("Chromium pools", CHROME, reservations.allocations(32 * GIB, 32 * GIB, 16 * GIB), ELECTRON),
    OwnerRow("PartitionAlloc", CHROME, reservations.super_pages, PUBLIC),
    OwnerRow("Control Flow Guard bitmap", None, reservations.guard_bitmap, ELECTRON),
    OwnerRow("stack of no listed thread", None, reservations.stacks, PUBLIC),
    _file("SQLite database", mapped_files.begins(b"SQLite format 3\0")),
    _file("SQLite WAL index", mapped_files.is_wal_index),
    _file("image file", mapped_files.is_image, "recorded: mapped as data"),
    _file("ELF file", mapped_files.begins(b"\x7fELF"), "recorded: Wine"),
    _file("Java runtime image", mapped_files.begins(b"\xda\xda\xfe\xca", b"\xca\xfe\xda\xda")),
    _file("Java CDS archive", mapped_files.begins(b"\xa2\xba\x0b\xf0", b"\xf0\x0b\xab\xa2")),
    _file("Java performance data", mapped_files.begins(b"\xca\xfe\xc0\xc0"), "recorded: HotSpot 25"),
    _file("zip archive", mapped_files.begins(b"PK\3\4")),
    _file("PDF file", mapped_files.begins(b"%PDF-")),
    _file("font", mapped_files.begins(b"ttcf", b"OTTO")),
    _file("font", mapped_files.is_truetype),
    _file("ICU data file", mapped_files.begins(b"\xda\x27", at=2)),
    _file("type library", mapped_files.begins(b"MSFT\2\0\1\0")),
    _file("registry hive", mapped_files.begins(b"regf")),
)  # fmt: skip
"""Every owner that can be named."""


def find_owners(process: Process, table: RegionTable) -> Sequence[NamedOwner]:
    """The owners by every row, the surest last. Programs are looked for when their patterns are there."""
    memory = UnknownMemory(process, table)
    found = [(row, pieces) for row in ROWS if (pieces := list(islice(row.pattern(memory), _MOST_PIECES)))]
    presence = Presence(process, [row.program for row, _ in found if row.program is not None])
    named = [one for row, pieces in found for one in _named(row, pieces, presence)]
    return [owner for _, owner in sorted(named, key=lambda pair: pair[0])]


def _named(row: OwnerRow, pieces: Sequence[FoundOwner], presence: Presence) -> Iterator[tuple[Strength, NamedOwner]]:
    """The owners of one row. A proof needs no program."""
    program = presence.of(row.program) if row.program is not None else None
    for piece in pieces:
        if program is None and piece.strength is not Strength.PROOF:
            continue
        evidence = f"{program}; {piece.words}" if program else piece.words
        trust = Trust.GUESS if piece.strength is Strength.HINT else Trust.DERIVED
        yield piece.strength, NamedOwner(piece.span, row.name, evidence, trust)
