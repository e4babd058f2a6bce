"""Code outside modules: whose it is, and the reason given."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heapdump
from heapdump.process.symbols.namer import Namer
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke
from tests.process.symbols.test_namer import EXPORT_AT, directories, sections, tables

CLR = {"x64": 0x7FFA10000000, "x86": 0x6B000000}
SIZE = 0x700000
CODE = {"near": 0x7FFA50000000, "far": 0x15000000000, "x86": 0x5000000}
AT = 0x1234


def process(
    arch: HeapArch, place: int, code: bytes = b"", *names: str, protect: int = 0x20, kind: str = "MEM_PRIVATE"
) -> ProcessBuilder:
    """A process with runtimes and a reservation whose second page is code."""
    built = ProcessBuilder(arch=arch, build=19041)
    for i, name in enumerate(names):
        built.module(CLR[arch] + i * 0x1000000, SIZE, rf"C:\app\{name}")
    built.region(place, 0x1000, state="MEM_RESERVE", protect=0, type=kind)
    built.region(place + 0x1000, 0x1000, protect=protect, type=kind, allocation_base=place)
    return built.memory(place + 0x1000, code.ljust(0x1000, b"\xcc"))


def note(open_built, built: ProcessBuilder | BuiltDump, place: int) -> tuple[str, str]:
    with open_built(built) as snapshot:
        frame = Namer(snapshot.process).frame(place + AT)
        assert frame.module is None
        return frame.note, frame.trust


def loads(count: int, start: int) -> bytes:
    """mov rax, imm64; call rax: what compilers that run make of calls to their runtime."""
    return b"\x90" * 0x33 + b"".join(
        b"\x48\xb8" + (start + 0x1000 + 16 * i).to_bytes(8, "little") + b"\xff\xd0" for i in range(count)
    )


def calls(count: int, place: int, start: int) -> bytes:
    """call rel32, from the second page of `place` on."""
    return b"".join(b"\xe8" + struct.pack("<i", start + 0x1000 - (place + 0x1000 + 5 * i + 5)) for i in range(count))


def test_code_that_refers_to_the_runtime_is_its_own(open_built):
    built = process("x64", CODE["far"], loads(2, CLR["x64"]), "coreclr.dll")
    assert note(open_built, built, CODE["far"]) == (".NET code: it refers to coreclr.dll", "derived")
    place = CODE["x86"]
    built = process("x86", place, calls(8, place, CLR["x86"]), "CLR.dll")
    assert note(open_built, built, place) == (".NET code: it refers to CLR.dll", "derived")


def test_of_two_runtimes_the_one_that_is_referred_to_counts(open_built):
    built = process("x64", CODE["near"], loads(3, CLR["x64"] + 0x1000000), "coreclr.dll", "jvm.dll")
    assert note(open_built, built, CODE["near"]) == ("Java code: it refers to jvm.dll", "derived")


def test_few_references_are_chance(open_built):
    built = process("x64", CODE["far"], loads(1, CLR["x64"]), "coreclr.dll")
    assert note(open_built, built, CODE["far"]) == (
        "perhaps .NET code: executable memory, and coreclr.dll is loaded",
        "guess",
    )
    place = CODE["x86"]
    built = process("x86", place, calls(7, place, CLR["x86"]), "clr.dll")
    assert note(open_built, built, place) == ("perhaps .NET code: executable memory, and clr.dll is loaded", "guess")


def test_a_reservation_near_the_runtime_is_perhaps_its_own(open_built):
    built = process("x64", CODE["near"], b"", "coreclr.dll", "v8.dll")
    assert note(open_built, built, CODE["near"]) == (
        "perhaps .NET or V8 code: executable memory within 2 GiB of coreclr.dll or v8.dll",
        "guess",
    )
    built = process("x64", CODE["near"], b"", "coreclr.dll").module(0x10000000000, SIZE, r"C:\java\jvm.dll")
    assert note(open_built, built, CODE["near"]) == (
        "perhaps .NET code: executable memory within 2 GiB of coreclr.dll",
        "guess",
    )
    far = CLR["x64"] + (1 << 31) - 0x1000
    built = process("x64", far, b"", "coreclr.dll")
    assert note(open_built, built, far) == ("perhaps .NET code: executable memory, and coreclr.dll is loaded", "guess")


def test_without_a_runtime_it_is_generated_code(open_built):
    built = process("x64", CODE["near"], b"", "vision.dll", protect=0x40)
    assert note(open_built, built, CODE["near"]) == ("generated code", "guess")


@pytest.mark.parametrize(("protect", "kind", "said"), [
    (0x20, "MEM_MAPPED", ("perhaps .NET code: executable memory within 2 GiB of coreclr.dll", "guess")),
    (0x20, "MEM_IMAGE", ("image that is not in the module list", "exact")),
    (0x04, "MEM_PRIVATE", ("", "exact")),
])  # fmt: skip
def test_other_memory_is_what_the_map_says(open_built, protect, kind, said):
    """.NET 7 and later map its code twice, to write it here and run it there."""
    assert (
        note(open_built, process("x64", CODE["near"], b"", "coreclr.dll", protect=protect, kind=kind), CODE["near"])
        == said
    )


@pytest.mark.parametrize(("name", "kind"), [
    ("coreclr.dll", ".NET"), ("mscorwks.dll", ".NET"), ("mono.dll", "Mono"), ("mono-2.0-sgen.dll", "Mono"), ("mono-2.0-bdwgc.dll", "Mono"),
    ("libmonosgen-2.0.dll", "Mono"), ("jvm.dll", "Java"), ("j9jit29.dll", "Java"), ("libnode.dll", "V8"), ("msedge.dll", "V8"),
    ("jscript9.dll", "JavaScript"),
])  # fmt: skip
def test_runtimes_are_known_by_their_modules(open_built, name, kind):
    found, _ = note(open_built, process("x64", CODE["near"], b"", name), CODE["near"])
    assert found == f"perhaps {kind} code: executable memory within 2 GiB of {name}"


def test_a_runtime_linked_into_the_program_is_known_by_its_exports(open_built):
    place, base, path = CODE["near"], CLR["x64"], r"C:\app\editor.exe"
    built = ProcessBuilder(exe=path).module(base, 0x8000, path).region(place, 0x2000, protect=0x20)
    content = bytearray(sections())
    name = content.index(b"release\0")
    content[name : name + 21] = b"napi_module_register\0"
    built.memory(base + EXPORT_AT, bytes(content))
    dump = poke(built.build(), (base + directories("x64"), tables("x64")))
    assert note(open_built, dump, place) == ("perhaps V8 code: executable memory within 2 GiB of editor.exe", "guess")


@pytest.mark.property
@pytest.mark.parametrize("arch", ["x64", "x86"])
@given(seed=st.integers(0, 1 << 30), opcode=st.sampled_from([None, 0xE8]))
def test_noise_refers_to_nothing(open_built, arch, seed, opcode):
    raw = np.random.default_rng(seed).integers(0, 256, 0x1000, np.uint8)
    raw[:: 5 if opcode else 0x1000] = opcode or 0
    place = CODE["x86"] if arch == "x86" else CODE["near"]
    built = process(arch, place, raw.tobytes(), "vision.dll").module(CLR[arch] - 0x20000000, 0x8000000, r"C:\x\clr.dll")
    found, trust = note(open_built, built, place)
    assert (trust, found.startswith("perhaps .NET")) == ("guess", True)


@pytest.mark.real
def test_the_code_of_electron_is_within_reach_of_its_program(recorded):
    with heapdump.open_dump(recorded("real/partial/win11-26200-x64-electron-crashpad.dmp.xz")) as snapshot:
        frame = Namer(snapshot.process).frame(0x7FF6C45C0010)
        assert str(frame) == "0x7ff6c45c0010 (perhaps V8 code: executable memory within 2 GiB of electron.exe)"
        assert frame.trust == "guess"
