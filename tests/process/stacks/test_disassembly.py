"""Instructions: decoded from bytes by hand, and those of compiled programs against llvm-objdump's."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pefile
import pytest

from heapdump.analyses.by_hand.alignment import aligned_before
from heapdump.process.stacks.disassembly import decode

OBJDUMP = shutil.which("llvm-objdump")


def programs() -> list[Path]:
    """Compiled Windows programs that Python packages bring along: launchers for scripts."""
    found: list[Path] = []
    for package, names in (
        ("setuptools", ("cli-32.exe", "cli-64.exe")),
        ("pip._vendor.distlib", ("t32.exe", "t64.exe")),
    ):
        spec = find_spec(package.partition(".")[0])
        folders = (
            [Path(place, *package.split(".")[1:]) for place in (spec.submodule_search_locations or ()) if spec]
            if spec
            else []
        )
        found += [folder / name for folder in folders for name in names if (folder / name).is_file()]
    return found


PROGRAMS = programs()
needs_objdump = pytest.mark.skipif(
    not OBJDUMP or not PROGRAMS, reason="no llvm-objdump, or no compiled Windows program"
)


class Program:
    """The code of a program, and its instructions as llvm-objdump prints them."""

    def __init__(self, path: Path) -> None:
        image = pefile.PE(str(path))
        self.pointer = 8 if image.OPTIONAL_HEADER.Magic == 0x20B else 4
        section = image.sections[0]
        self.base = image.OPTIONAL_HEADER.ImageBase + section.VirtualAddress
        self.code = section.get_data()[: section.Misc_VirtualSize]
        command = [str(OBJDUMP), "-d", "--x86-asm-syntax=intel", "--section=.text", str(path)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines = re.findall(r"^\s*([0-9a-f]+): ((?:[0-9a-f]{2}(?: |(?=\t)))+)\s*(\S+)", out, re.MULTILINE)
        self.listing = [(int(at, 16), bytes.fromhex(data), mnemonic) for at, data, mnemonic in lines]

    def after(self, address: int, size: int) -> bytes:
        """The bytes from an address on."""
        return self.code[address - self.base :][:size]

    def before(self, address: int, size: int) -> bytes:
        """The bytes before an address."""
        end = address - self.base
        return self.code[max(0, end - size) : end]


@pytest.fixture(scope="module", params=PROGRAMS or [Path("none")], ids=lambda path: path.name)
def program(request: pytest.FixtureRequest) -> Program:
    return Program(request.param)


@needs_objdump
def test_instructions_are_llvms(program):
    """Alike in place, bytes and mnemonic but for words that the two spell differently."""
    chosen = random.Random(1).sample(program.listing, 1500)
    own = [next(decode(program.after(at, 32), at, program.pointer)) for at, _, _ in chosen]
    alike = [one.data == data for one, (_, data, _) in zip(own, chosen, strict=True)]
    assert sum(alike) >= 0.998 * len(chosen)
    words = [(one.text.split()[0], mnemonic) for one, (_, _, mnemonic) in zip(own, chosen, strict=True)]
    assert sum(ours == theirs for ours, theirs in words) >= 0.95 * len(words)
    assert [one.is_call for one in own] == [mnemonic.startswith("call") for _, _, mnemonic in chosen]


@needs_objdump
def test_the_call_before_a_return_address_is_found_backwards(program):
    at = [i for i, (_, _, mnemonic) in enumerate(program.listing[:-1]) if mnemonic.startswith("call")]
    chosen = random.Random(2).sample(at, min(300, len(at)))
    right = whole = 0
    for i in chosen:
        address = program.listing[i + 1][0]
        run = aligned_before(program.before(address, 512), address, program.pointer, 6)
        right += run[-1].address == program.listing[i][0]
        whole += [one.address for one in run] == [place for place, _, _ in program.listing[max(0, i - 5) : i + 1]]
    assert right >= 0.99 * len(chosen)
    assert whole >= 0.98 * len(chosen)


@pytest.mark.parametrize(
    ("pointer", "code", "texts"),
    [
        (4, "558bec ff7508 e8f0ffffff c9 c20400", ["push ebp", "mov ebp, esp", "push dword ptr [ebp+8]", "call 0xffb", "leave", "ret 4"]),
        (8, "4883ec28 ff15faffffff 488d05f1ffffff c3", ["sub rsp, 0x28", "call qword ptr [rip-6]", "lea rax, [rip-0xf]", "ret"]),
        (8, "06 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90", ["db 0x06", *["nop"] * 16]),
        (8, "4883ec", []),
    ],
)  # fmt: skip
def test_instructions_by_hand(pointer, code, texts):
    assert [one.text for one in decode(bytes.fromhex(code), 0x1000, pointer)] == texts


def test_operands_and_targets():
    call, load = decode(bytes.fromhex("e8f0ffffff 8b448ef0"), 0x401000, 4)
    assert (call.is_call, call.target, call.memory) == (True, 0x400FF5, None)
    assert str(load.memory) == "[esi+ecx*4-0x10]" and load.memory is not None and load.memory.size == 4
    jump, absolute = decode(bytes.fromhex("eb02 a100104000"), 0x401000, 4)
    assert (jump.is_jump, jump.target) == (True, 0x401004)
    assert str(absolute.memory) == "[0x401000]"


@pytest.mark.parametrize("pointer", [4, 8])
def test_random_bytes_never_raise(pointer):
    chance = random.Random(3)
    for _ in range(60):
        code = chance.randbytes(chance.randrange(1, 300))
        run = list(decode(code, 0x1000, pointer))
        assert all(a.end == b.address for a, b in itertools.pairwise(run))
        for count in (0, 1, 50):
            found = aligned_before(code, 0x1000, pointer, count)
            assert len(found) <= count
            assert not found or found[-1].end == 0x1000


@pytest.mark.parametrize("size", [4094, 4096, 4100, 8197])
def test_code_that_is_decoded_in_pieces_is_decoded_whole(size):
    code = (bytes.fromhex("48b80102030405060708") * 900)[:size]
    for start in range(3):
        found = [one.address for one in decode(bytes.fromhex("9090")[:start] + code, 0x1000, 8)]
        assert found == [*range(0x1000, 0x1000 + start), *range(0x1000 + start, 0x1000 + start + size // 10 * 10, 10)]
