"""PE facts of a module through pefile: sections, export names, function bounds, PDB identity.

Read from the module's memory in the dump; where that is missing, from the file under `--image-path` that has the same
time stamp and size. Tables are read with numpy: pefile would make an object of each of ntdll's 2,500 exports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
import pefile
from numpy.typing import NDArray

from heapdump.memory.space import AddressSpace
from heapdump.process.model import Module
from heapdump.process.symbols.exports import Exports, read_exports
from heapdump.process.symbols.forwarders import read_forwarders
from heapdump.process.symbols.imports import Import, read_imports, text_at
from heapdump.process.symbols.store import SymbolStores
from heapdump.process.symbols.stored_files import wanted_image
from heapdump.process.symbols.version_strings import read_versions

_HEADER_BYTES = 0x1000
_MOST_FUNCTIONS = 1 << 21

_EXECUTABLE = 0x20000000
"""IMAGE_SCN_MEM_EXECUTE (winnt.h)."""

_LARGE_ADDRESS_AWARE, _DYNAMIC_BASE = 0x20, 0x40
_EXPORT, _IMPORT, _EXCEPTION, _DEBUG, _DELAY_IMPORT = 0, 1, 3, 6, 13  # indices of data directories (winnt.h)
_RESOURCE = 2
ReadRva = Callable[[int, int], bytes | None]


@dataclass(frozen=True, slots=True)
class ImageSection:
    """A section of an image.

    Attributes:
        name: at most 8 characters.
        rva: of its first byte in memory.
        size: bytes in memory (VirtualSize).
        file_size: bytes in the file (SizeOfRawData).
        characteristics: IMAGE_SCN_… bits (winnt.h).
    """

    name: str
    rva: int
    size: int
    file_size: int
    characteristics: int

    @property
    def access(self) -> str:
        """Its access as text: `r-x`, `rw-`."""
        bits = ((1 << 30, "r"), (1 << 31, "w"), (_EXECUTABLE, "x"))
        return "".join(letter if self.characteristics & bit else "-" for bit, letter in bits)


@dataclass(frozen=True, slots=True)
class ImageHeaders:
    """The file header and the optional header of an image; values as stored (winnt.h), versions as (major, minor).

    Attributes:
        machine: IMAGE_FILE_MACHINE_….
        characteristics: IMAGE_FILE_… bits.
        timestamp: TimeDateStamp; a hash of the content in reproducible builds.
        linker: version of the linker.
        entry: RVA of the entry point; 0 without one.
        image_base: preferred address in a file; in memory since Vista the actual one.
        size: SizeOfImage, in bytes.
        checksum: of the file; 0 where the linker wrote none.
        subsystem: IMAGE_SUBSYSTEM_….
        subsystem_version: lowest version of Windows.
        dll_characteristics: IMAGE_DLLCHARACTERISTICS_… bits.
    """

    machine: int
    characteristics: int
    timestamp: int
    linker: tuple[int, int]
    entry: int
    image_base: int
    size: int
    checksum: int
    subsystem: int
    subsystem_version: tuple[int, int]
    dll_characteristics: int


class Image:
    """One module's image; `source` says where it was read."""

    def __init__(self, headers: pefile.PE, read: ReadRva, source: str) -> None:
        """Use `open_image`."""
        self._headers, self.read, self.source = headers, read, source

    @property
    def is_x64(self) -> bool:
        """True for PE32+ of AMD64."""
        return bool(self._headers.FILE_HEADER.Machine == pefile.MACHINE_TYPE["IMAGE_FILE_MACHINE_AMD64"])

    @property
    def is_large_address_aware(self) -> bool:
        """True where the linker set IMAGE_FILE_LARGE_ADDRESS_AWARE: a 32-bit process may use more than 2 GiB."""
        return bool(self._headers.FILE_HEADER.Characteristics & _LARGE_ADDRESS_AWARE)

    @property
    def has_dynamic_base(self) -> bool:
        """True where the linker set IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE: Windows chooses the base (ASLR)."""
        return bool(self._headers.OPTIONAL_HEADER.DllCharacteristics & _DYNAMIC_BASE)

    @property
    def header_base(self) -> int:
        """ImageBase of the header: the preferred base in a file; in memory since Vista the actual base."""
        return int(self._headers.OPTIONAL_HEADER.ImageBase)

    @cached_property
    def sections(self) -> tuple[ImageSection, ...]:
        """The section table, in its order."""
        return tuple(
            ImageSection(
                one.Name.rstrip(b"\0").decode("latin-1"), int(one.VirtualAddress), int(one.Misc_VirtualSize),
                int(one.SizeOfRawData), int(one.Characteristics),
            )
            for one in self._headers.sections
        )  # fmt: skip

    @cached_property
    def headers(self) -> ImageHeaders:
        """The file header and the optional header."""
        file, own = self._headers.FILE_HEADER, self._headers.OPTIONAL_HEADER
        return ImageHeaders(
            int(file.Machine), int(file.Characteristics), int(file.TimeDateStamp),
            (int(own.MajorLinkerVersion), int(own.MinorLinkerVersion)), int(own.AddressOfEntryPoint),
            int(own.ImageBase), int(own.SizeOfImage), int(own.CheckSum), int(own.Subsystem),
            (int(own.MajorSubsystemVersion), int(own.MinorSubsystemVersion)), int(own.DllCharacteristics),
        )  # fmt: skip

    @property
    def unreadable_tables(self) -> list[str]:
        """Names of tables that the headers name and that neither the dump nor a file holds: `import table` …."""
        tables = {"import table": _IMPORT, "export table": _EXPORT, "version resource": _RESOURCE}
        places = {name: self.directory(index) for name, index in tables.items()}
        return [name for name, (rva, size) in places.items() if size and self.read(rva, 16) is None]

    @cached_property
    def versions(self) -> dict[str, str]:
        """The texts of its version resource: `CompanyName`, `ProductName` …; none where it is not there."""
        return read_versions(self.read, self.directory(_RESOURCE)[0])

    @cached_property
    def forwarders(self) -> dict[str, str]:
        """Name of an export → the `NTDLL.RtlAllocateHeap` that it is forwarded to; only forwarded exports."""
        return read_forwarders(self.read, *self.directory(_EXPORT))

    @property
    def export_name(self) -> str:
        """The name that the export table gives the image; "" without one."""
        rva, size = self.directory(_EXPORT)
        table = self.read(rva, 40) if size else None
        return text_at(self.read, int.from_bytes(table[12:16], "little")) if table else ""

    @cached_property
    def exports(self) -> Exports:
        """Its named exports without forwarders; none where the table is not there or not possible."""
        return read_exports(self.read, *self.directory(_EXPORT))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every function that it imports, in the order of its tables; none where they are not there."""
        return read_imports(
            self.read, self.directory(_IMPORT)[0], self.directory(_DELAY_IMPORT)[0], is_wide=self.is_x64
        )

    @cached_property
    def functions(self) -> NDArray[np.uint32]:
        """RUNTIME_FUNCTION rows of x64 images: (n, 3) uint32 begin, end, unwind information, ascending by begin."""
        rva, size = self.directory(_EXCEPTION) if self.is_x64 else (0, 0)
        data = self.read(rva, min(size, 12 * _MOST_FUNCTIONS) // 12 * 12) if size else None
        rows = np.frombuffer(data or b"", "<u4").reshape(-1, 3)
        rows = rows[rows[:, 0] < rows[:, 1]]
        return rows[np.argsort(rows[:, 0], kind="stable")]

    def section_at(self, rva: int) -> tuple[str, int] | None:
        """(name, RVA) of the section that holds an RVA; None in the headers and behind the last one."""
        for section in self._headers.sections:
            start, size = int(section.VirtualAddress), max(int(section.Misc_VirtualSize), int(section.SizeOfRawData))
            if start <= rva < start + size:
                return section.Name.rstrip(b"\0").decode("latin-1"), start
        return None

    def is_code(self, rva: int) -> bool:
        """True when an RVA lies in an executable section."""
        return any(
            section.VirtualAddress
            <= rva
            < section.VirtualAddress + max(section.Misc_VirtualSize, section.SizeOfRawData)
            for section in self._headers.sections
            if section.Characteristics & _EXECUTABLE
        )

    def function_at(self, rva: int) -> tuple[int, int, int] | None:
        """(begin, end, unwind information) of the function whose code holds an RVA, as RVAs; end is exclusive.

        None where no RUNTIME_FUNCTION holds it, as in leaf functions, and for x86.
        """
        i = int(np.searchsorted(self.functions[:, 0], rva, side="right")) - 1
        if i < 0 or rva >= self.functions[i, 1]:
            return None
        begin, end, unwind = (int(value) for value in self.functions[i])
        return begin, end, unwind

    def directory(self, index: int) -> tuple[int, int]:
        """(RVA, bytes) of the data directory with an index (winnt.h); zeros where there is none."""
        directories = self._headers.OPTIONAL_HEADER.DATA_DIRECTORY
        if index >= len(directories):
            return 0, 0
        return int(directories[index].VirtualAddress), int(directories[index].Size)


def open_image(
    space: AddressSpace,
    module: Module,
    images: SymbolStores | None,
    elsewhere: Callable[[], Image | None] = lambda: None,
) -> Image | None:
    """The module's image from memory, else from its file; None where neither is there.

    The file is looked for where the dump has not what is read: in the stores of images, then by `elsewhere`.
    """
    header = space.try_read(module.span.start, _HEADER_BYTES)
    parsed = _parsed_header(header) if header else None

    def from_memory(rva: int, size: int) -> bytes | None:
        """Bytes of the image in the dump's memory."""
        inside = rva >= 0 and rva + size <= module.span.size
        return space.try_read(module.span.start + rva, size) if inside else None

    @cache
    def file() -> Image | None:
        """The image of the module's file."""
        found = file_image(module, images) if images else None
        return elsewhere() if found is None and not in_memory else found

    in_memory = parsed is not None and _has_tables(parsed, from_memory)
    if parsed is None or (not in_memory and file() is not None):
        return file()

    def from_either(rva: int, size: int) -> bytes | None:
        """Bytes of the image in the dump's memory, else of its file."""
        data = from_memory(rva, size)
        is_inside = rva >= 0 and rva + size <= module.span.size
        found = file() if data is None and is_inside and in_memory else None
        return found.read(rva, size) if found else data

    return Image(parsed, from_either, "memory")


def image_at(space: AddressSpace, address: int) -> Image | None:
    """The image whose headers lie at an address, which no module list names; None where no headers lie there."""
    header = space.try_read(address, _HEADER_BYTES)
    parsed = _parsed_header(header) if header is not None and header.startswith(b"MZ") else None
    if parsed is None:
        return None
    size = int(parsed.OPTIONAL_HEADER.SizeOfImage)

    def from_memory(rva: int, length: int) -> bytes | None:
        """Bytes of the image in the dump's memory."""
        return space.try_read(address + rva, length) if rva >= 0 and rva + length <= size else None

    return Image(parsed, from_memory, "memory")


def _has_tables(headers: pefile.PE, read: ReadRva) -> bool:
    """True when the export table is in the dump, or there is none."""
    entry = headers.OPTIONAL_HEADER.DATA_DIRECTORY[:1]
    return not entry or not entry[0].Size or read(int(entry[0].VirtualAddress), 40) is not None


def file_image(module: Module, stores: SymbolStores) -> Image | None:
    """The file of that name in the stores with the module's time stamp and size; None without one."""
    wanted = wanted_image(module.name, module.timestamp, module.span.size)
    if wanted is None:
        return None
    for candidate in stores.candidates(wanted, lambda path: _refusal(path, module)):
        try:
            headers = _parsed(candidate.path.read_bytes())
        except OSError:
            continue
        if headers is not None:
            return Image(headers, _reader(headers), candidate.source)
    return None


def _reader(headers: pefile.PE) -> ReadRva:
    """A function that reads bytes of an image by its file's sections."""

    def from_file(rva: int, size: int) -> bytes | None:
        """Bytes of the image."""
        if rva < 0:
            return None
        try:
            found = headers.get_data(rva, size)
        except pefile.PEFormatError:  # in no section
            return None
        return found if len(found) == size else None

    return from_file


def _refusal(path: Path, module: Module) -> str:
    """Why a file is not the module's image, or ""."""
    try:
        with path.open("rb") as file:
            headers = _parsed(file.read(_HEADER_BYTES))
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if headers is None:
        return "is no image"
    own = headers.FILE_HEADER.TimeDateStamp, headers.OPTIONAL_HEADER.SizeOfImage
    is_right = own == (module.timestamp, module.span.size)
    return "" if is_right else "is another build's: its time stamp or size is not the module's"


@lru_cache(maxsize=64)
def _parsed_header(data: bytes) -> pefile.PE | None:
    """`_parsed` of the first bytes of an image. Commands read those of a few modules, again and again."""
    return _parsed(data)


def _parsed(data: bytes) -> pefile.PE | None:
    try:
        return pefile.PE(data=data, fast_load=True)
    except (pefile.PEFormatError, ValueError, IndexError, AttributeError):
        return None
