"""PDBs: a small DLL is compiled where clang and lld-link are installed; names and lines equal llvm-symbolizer's."""

from __future__ import annotations

import shutil
import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from heapdump.dump.streams import PdbId
from heapdump.process.symbols.namer import Namer
from heapdump.process.symbols.pdb import _bare, open_symbols, undecorated
from heapdump.process.symbols.symbol_path import folders
from tests.builders import ProcessBuilder

TOOLS = ("clang", "lld-link", "llvm-symbolizer")
SOURCE = """\
extern "C" { int _fltused; }
namespace vision {
struct Task { int run(int n); int weight; };
__attribute__((noinline)) int Task::run(int n) {
  int sum = 0;
  for (int i = 0; i < n; i++)
    sum += weight * i;
  return sum;
}
}
extern "C" __declspec(dllexport) int entry(int n) {
  vision::Task task;
  task.weight = n;
  vision::Task *p = &task;
  return p->run(n) + 1;
}
extern "C" int _DllMainCRTStartup(void*, unsigned, void*) { return 1; }
"""
BASE = 0x180000000

needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS),
    reason=f"no PDB is made: {', '.join(TOOLS)} are not all installed",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pdb")
    (folder / "task.cpp").write_text(SOURCE)
    compile_ = [
        "clang",
        "--target=x86_64-pc-windows-msvc",
        "-g",
        "-gcodeview",
        "-O1",
        "-c",
        "task.cpp",
        "-o",
        "task.obj",
    ]
    link = [
        "lld-link",
        "/dll",
        "/debug",
        "/nodefaultlib",
        "/entry:_DllMainCRTStartup",
        "/pdb:task.pdb",
        "/out:task.dll",
        "task.obj",
    ]
    for command in (compile_, link):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def identity(folder: Path) -> PdbId:
    """The CodeView record of the DLL, found by its magic."""
    data = (folder / "task.dll").read_bytes()
    at = data.index(b"RSDS")
    return PdbId(
        r"C:\build\task.pdb",
        uuid.UUID(bytes_le=data[at + 4 : at + 20]).hex.upper(),
        struct.unpack_from("<I", data, at + 20)[0],
    )


def symbolized(folder: Path, rva: int) -> tuple[str, str, int]:
    """(function, file, line) by llvm-symbolizer."""
    command = ["llvm-symbolizer", "--obj=task.dll", "--relative-address", "--no-inlines", hex(rva)]
    out = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.splitlines()
    file, line, _ = out[1].rsplit(":", 2)
    return out[0].partition("(")[0], Path(file).name, int(line)


@needs_tools
def test_names_and_lines_are_llvms(made):
    wanted = identity(made)
    symbols = open_symbols(str(made), wanted, [])
    assert symbols is not None
    checked = set()
    for rva in range(0x1000, 0x1100):
        found = symbols.function_at(rva)
        if found is None or not found[2]:
            continue
        function, file, line = symbolized(made, rva)
        assert found[0] == function
        place = symbols.line_at(rva, found[1])
        assert place is not None and (Path(place[0].replace("\\", "/")).name, place[1]) == (file, line)
        checked.add(function)
    assert checked == {"vision::Task::run", "entry", "_DllMainCRTStartup"}


@needs_tools
@pytest.mark.parametrize("place", ["", "task.pdb/KEY", "ta/task.pdb/KEY"])
def test_stores_are_searched_by_guid_and_age(made, tmp_path, place):
    wanted = identity(made)
    folder = tmp_path / "store" / place.replace("KEY", f"{wanted.guid}{wanted.age:X}")
    folder.mkdir(parents=True)
    shutil.copy(made / "task.pdb", folder)
    path = f"srv*{tmp_path / 'store'}*https://symbols.invalid/x;cache*{tmp_path / 'none'}"
    assert open_symbols(path, wanted, []) is not None


@needs_tools
def test_another_builds_pdb_is_named_and_not_used(made):
    notes: list[str] = []
    wanted = PdbId("task.pdb", "0" * 32, 1)
    assert open_symbols(str(made), wanted, notes) is None
    assert len(notes) == 1 and "another build" in notes[0]


@needs_tools
def test_frames_carry_function_file_and_line(made, open_built):
    built = ProcessBuilder().module(
        BASE, 0x8000, r"C:\acme\task.dll", pdb=("task.pdb", uuid.UUID(identity(made).guid).bytes_le, identity(made).age)
    )
    with open_built(built) as snapshot:
        namer = Namer(snapshot.process, None, str(made))
        frames = [namer.frame(BASE + rva) for rva in range(0x1001, 0x1080)]
        named = [frame for frame in frames if frame.symbol == "vision::Task::run"]
        assert named and all(
            frame.trust == "exact" and frame.line and (frame.file or "").endswith("task.cpp") for frame in named
        )
        assert str(named[0]).startswith("task.dll!vision::Task::run+0x1 [")


@pytest.mark.parametrize("damage", [b"", b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0" + b"\xff" * 100, b"x" * 5000])
def test_a_file_that_is_no_pdb_is_a_note(tmp_path, damage):
    (tmp_path / "task.pdb").write_bytes(damage)
    notes: list[str] = []
    assert open_symbols(str(tmp_path), PdbId("task.pdb", "0" * 32, 1), notes) is None
    assert len(notes) == 1


@pytest.mark.parametrize("name", ["..", ".", "", "..\\..\\..\\", "a/.."])
def test_a_pdb_name_never_leads_out_of_the_folders(tmp_path, name):
    assert open_symbols(str(tmp_path), PdbId(name, "0" * 32, 1), []) is None


def test_a_symbol_path_is_read_as_windbg_reads_it():
    path = r"srv*C:\cache*https://msdl.invalid/x;D:\own symbols;cache*E:\c;\\server\share;symsrv*symsrv.dll*F:\x*http://y.invalid"
    assert [str(folder) for folder in folders(path)] == [r"C:\cache", r"D:\own symbols", r"E:\c", r"F:\x"]


@pytest.mark.parametrize(
    ("decorated", "plain"),
    [("?run@Task@vision@@QEAAHH@Z", "vision::Task::run"), ("??0Task@vision@@QEAA@XZ", "vision::Task::Task"),
     ("??R<lambda_1>@@QEBA@XZ", None), ("entry", "entry"), ("?", "?"), ("??Bint@@QEAAHXZ", None),
     ("?f@?$vector@H@std@@QEAAXP6AHH@Z@Z", "std::vector<int>::f")],
)  # fmt: skip
def test_names_are_undecorated_without_parameters(decorated, plain):
    pytest.importorskip("pycxxfilt")
    found = undecorated(decorated)
    assert found
    assert plain is None or found == plain


INLINED = """\
extern "C" { int _fltused; }
static volatile int sink;
static inline __attribute__((always_inline)) int innermost(int n) { sink = n; return sink * 3; }
static inline __attribute__((always_inline)) int middle(int n) { sink = n + 1; return innermost(n) + 5; }
extern "C" __declspec(dllexport) int entry(int n) { sink = 9; return middle(n) - sink; }
extern "C" int _DllMainCRTStartup(void*, unsigned, void*) { return 1; }
"""


@needs_tools
def test_inlined_functions_are_llvms(tmp_path, open_built):
    (tmp_path / "task.cpp").write_text(INLINED)
    compile_ = [
        "clang",
        "--target=x86_64-pc-windows-msvc",
        "-g",
        "-gcodeview",
        "-O1",
        "-c",
        "task.cpp",
        "-o",
        "task.obj",
    ]
    link = [
        "lld-link",
        "/dll",
        "/debug",
        "/nodefaultlib",
        "/entry:_DllMainCRTStartup",
        "/pdb:task.pdb",
        "/out:task.dll",
        "task.obj",
    ]
    for command in (compile_, link):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    symbols = open_symbols(str(tmp_path), identity(tmp_path), [])
    assert symbols is not None
    seen = set()
    for rva in range(0x1000, 0x1030):
        command = ["llvm-symbolizer", "--obj=task.dll", "--relative-address", "--inlines", hex(rva)]
        out = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split("\n")
        names = [line.partition("(")[0] for line in out[::2] if line and ":" not in line]
        function = symbols.function_at(rva)
        if function is None or names[-1] != function[0]:
            continue
        assert symbols.inlined_at(rva) == names[:-1]
        seen.add(tuple(names))
    assert ("innermost", "middle", "entry") in seen and ("entry",) in seen
    known = identity(tmp_path)
    built = ProcessBuilder().module(
        BASE, 0x8000, r"C:\acme\task.dll", pdb=("task.pdb", uuid.UUID(known.guid).bytes_le, known.age)
    )
    with open_built(built) as snapshot:
        namer = Namer(snapshot.process, None, str(tmp_path))
        stacks = {
            tuple(str(frame).partition("+")[0].partition(" [")[0] for frame in namer.frames(BASE + rva))
            for rva in range(0x1001, 0x1030)
        }
    assert ("task.dll!innermost (inline)", "task.dll!middle (inline)", "task.dll!entry") in stacks


@pytest.mark.parametrize(
    ("declaration", "name"),
    [("public: static void __cdecl `anonymous namespace'::X::f(void)", "`anonymous namespace'::X::f"),
     ("public: bool __cdecl A::operator<(class A const &)", "A::operator<"), ("public: void __cdecl F::operator()(int) const", "F::operator()"),
     ("public: __cdecl X::operator int *(void)", "X::operator int *"), ("void (__cdecl * __cdecl h(void))(int)", ""),
     ("class std::vector<int, class A<int> > __cdecl make<int>(int (__cdecl *)(int))", "make<int>"), ("int sink", "")],
)  # fmt: skip
def test_the_name_in_a_declaration(declaration, name):
    assert _bare(declaration) == name


def test_a_very_long_name_is_not_demangled():
    long = "?f@@YAX" + "V?$A@" * 12000 + "@Z"
    assert undecorated(long) == long
