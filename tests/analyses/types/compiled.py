"""`program.cpp` as DLLs of several compilers, and processes that have one of them and its objects in a heap.

Each DLL is compiled once in a session. What every block is, is known from how it is laid out here.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pefile
import pytest

from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch

SOURCE = Path(__file__).with_name("program.cpp")
MODULE = r"C:\acme\program.dll"
ARCHES: tuple[HeapArch, ...] = ("x64", "x86")
_TARGET = {"x64": "x86_64", "x86": "i686"}
_HEAP = {"x64": 0x20000000000, "x86": 0x1000000}
_PAGE, _EXECUTE, _WRITE = 0x1000, 0x20000000, 0x80000000


@dataclass(frozen=True)
class Compiled:
    """A DLL, as it lies in memory at its preferred base."""

    arch: HeapArch
    path: Path

    @cached_property
    def _image(self) -> pefile.PE:
        return pefile.PE(str(self.path))

    @cached_property
    def base(self) -> int:
        return int(self._image.OPTIONAL_HEADER.ImageBase)

    @cached_property
    def data(self) -> bytes:
        size = self._image.OPTIONAL_HEADER.SizeOfImage
        return bytes(self._image.get_memory_mapped_image()).ljust(size, b"\0")[:size]

    @cached_property
    def exports(self) -> dict[str, int]:
        """Name → RVA."""
        return {one.name.decode(): one.address for one in self._image.DIRECTORY_ENTRY_EXPORT.symbols}

    @cached_property
    def objects(self) -> dict[str, bytes]:
        """Name of a class → the content of its object."""
        names = [name.removeprefix("object_") for name in self.exports if name.startswith("object_")]
        return {name: self.at(self.exports[f"object_{name}"], self.size_of(name)) for name in names}

    def size_of(self, name: str) -> int:
        return int.from_bytes(self.at(self.exports[f"size_{name}"], 4), "little")

    def at(self, rva: int, size: int) -> bytes:
        return self.data[rva : rva + size]

    def into(self, process: ProcessBuilder, late: dict[int, bytes]) -> None:
        """Adds the module. `late`: RVA → bytes that its data has now."""
        data = bytearray(self.data)
        for rva, content in late.items():
            data[rva : rva + len(content)] = content
        process.dump.module(self.base, len(data), MODULE, pdb=self._pdb)
        process.memory(self.base, bytes(data))
        parts = [(0, _PAGE, 2)]
        for section in self._image.sections:
            start, size = section.VirtualAddress, -(-section.Misc_VirtualSize // _PAGE) * _PAGE
            kind = section.Characteristics
            parts.append((start, size, 0x20 if kind & _EXECUTE else 4 if kind & _WRITE else 2))
        for start, size, protect in parts:
            process.region(
                self.base + start,
                size,
                type="MEM_IMAGE",
                protect=protect,
                allocation_base=self.base,
                allocation_protect=0x80,
            )

    @property
    def _pdb(self) -> tuple[str, bytes, int] | None:
        """(path, GUID, age) of its PDB, as its debug directory has them."""
        for one in getattr(self._image, "DIRECTORY_ENTRY_DEBUG", ()):
            data = self.at(one.struct.AddressOfRawData, one.struct.SizeOfData)
            if data.startswith(b"RSDS"):
                return data[24:].rstrip(b"\0").decode(), data[4:20], int.from_bytes(data[20:24], "little")
        return None


def compiled(folder: Path, compiler: str, arch: HeapArch, *flags: str) -> Compiled:
    """The DLL of a compiler, `clang` or `mingw`; skips the test where it is not installed."""
    target = f"{_TARGET[arch]}-w64-mingw32-g++" if compiler == "mingw" else "clang"
    missing = [
        tool for tool in ((target,) if compiler == "mingw" else ("clang", "lld-link")) if shutil.which(tool) is None
    ]
    if missing:
        pytest.skip(f"nothing is compiled: {' and '.join(missing)} not installed")
    out = folder / f"{compiler}-{arch}{''.join(flags)}" / "program.dll"
    if not out.exists():
        out.parent.mkdir()
        for command in _commands(compiler, arch, target, flags):
            subprocess.run(command, cwd=out.parent, check=True, capture_output=True)
    return Compiled(arch, out)


def _commands(compiler: str, arch: HeapArch, target: str, flags: tuple[str, ...]) -> list[list[str]]:
    if compiler == "mingw":
        return [[target, *flags, "-O1", "-shared", "-static", "-s", str(SOURCE), "-o", "program.dll"]]
    build = ["clang", f"--target={_TARGET[arch]}-pc-windows-msvc", *flags, "-O1", "-g", "-gcodeview", "-c", str(SOURCE)]
    link = ["lld-link", "/dll", "/nodefaultlib", "/force:unresolved", "/safeseh:no", "/entry:start", "/debug"]
    return [[*build, "-o", "program.obj"], [*link, "/out:program.dll", "/pdb:program.pdb", "program.obj"]]


@dataclass
class Objects:
    """A heap with objects of a DLL: what each block is, is in `truth`."""

    program: Compiled
    seed: int = 1
    truth: dict[int, str] = field(default_factory=dict)
    globals: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.width = 8 if self.program.arch == "x64" else 4
        self.random = random.Random(self.seed)
        self.heap = NtHeapBuilder(arch=self.program.arch, build=19041, base=_HEAP[self.program.arch], reserve=0x4000000)
        self.late: list[tuple[int, bytes]] = []

    def words(self, *values: int) -> bytes:
        return b"".join(value.to_bytes(self.width, "little") for value in values)

    def add(self, truth: str, content: bytes, size: int = 0) -> int:
        """A block; what is not its content is noise of a freed one."""
        size = size or len(content)
        if self.random.random() < 0.1:
            self.heap.free(2 + self.random.randrange(6))
        address = self.heap.busy(size, content + self.random.randbytes(size - len(content)))
        self.truth[address] = truth
        return address

    def scatter(self, *makers: Callable[[], object], each: int) -> None:
        """Calls every maker `each` times, in random order."""
        todo = [maker for maker in makers for _ in range(each)]
        self.random.shuffle(todo)
        for maker in todo:
            maker()

    def process(self) -> ProcessBuilder:
        """The process; `globals` are written to the exports of these names."""
        process = ProcessBuilder(arch=self.program.arch, build=19041).heap(self.heap.build())
        self.program.into(process, {self.program.exports[name]: data for name, data in self.globals.items()})
        return process
