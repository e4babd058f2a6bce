"""An image in memory without a place in the module list: its sections, directories, exports and resources.

The runtime maps assemblies as the loader does (RVA = offset), or flat, as they lie in the file (RVA → file offset by
the section table). `BSJB` at the metadata tells which; source: ECMA-335 II.24.2.1, II.25.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from heapdump.memory.space import AddressSpace

EXPORTS, RESOURCES, EXCEPTIONS, CLR_HEADER = 0, 2, 3, 14
_RCDATA = 10
_MOST_SECTIONS, _MOST_ENTRIES = 96, 1 << 16
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class _MappedSection:
    """A section: where it is loaded, and where it lies in the file."""

    rva: int
    size: int
    file_offset: int


@dataclass(frozen=True, slots=True)
class MappedImage:
    """The headers of an image in memory.

    `base`: address of the headers; `is_flat`: True where its bytes lie as in the file; `is_wide`: True for PE32+.
    `size`: SizeOfImage, in bytes; `directories`: (RVA, bytes) of each data directory.
    """

    space: AddressSpace
    base: int
    machine: int
    is_wide: bool
    size: int
    directories: tuple[tuple[int, int], ...]
    sections: tuple[_MappedSection, ...]
    is_flat: bool = False

    def directory(self, index: int) -> tuple[int, int]:
        """(RVA, size in bytes) of a data directory; (0, 0) where there is none."""
        return self.directories[index] if index < len(self.directories) else (0, 0)

    def address(self, rva: int) -> int:
        """The address of an RVA."""
        if self.is_flat:
            for section in self.sections:
                if section.rva <= rva < section.rva + section.size:
                    return self.base + rva - section.rva + section.file_offset
        return self.base + rva

    def read(self, rva: int, size: int) -> bytes | None:
        """Bytes at an RVA; None where the dump does not hold all of them."""
        return self.space.try_read(self.address(rva), size) if rva >= 0 else None


def mapped_image(space: AddressSpace, base: int) -> MappedImage | None:
    """The image whose headers lie at an address; None where there is none."""
    head = space.try_read(base, 0x400) or space.try_read(base, 0x200)
    if head is None or head[:2] != b"MZ":
        return None
    at = int.from_bytes(head[0x3C:0x40], "little")
    if not 0x40 <= at <= 0x1000:
        return None
    head = space.try_read(base + at, 0x108 + 40 * _MOST_SECTIONS) or space.try_read(base + at, 0x400)
    if head is None or head[:4] != b"PE\0\0":
        return None
    machine, count, optional = struct.unpack_from("<HH12xH", head, 4)
    magic = int.from_bytes(head[24:26], "little")
    if magic not in (0x10B, 0x20B) or count > _MOST_SECTIONS:
        return None
    first = 24 + (112 if magic == 0x20B else 96)
    number = min(16, int.from_bytes(head[first - 4 : first], "little"))
    pairs = [struct.unpack_from("<II", head, first + 8 * i) for i in range(number) if first + 8 * i + 8 <= len(head)]
    sections = []
    for i in range(count):
        place = 24 + optional + 40 * i
        if place + 40 > len(head):
            break
        virtual, rva, raw, offset = struct.unpack_from("<IIII", head, place + 8)
        sections.append(_MappedSection(rva, max(virtual, raw), offset))
    size = int.from_bytes(head[24 + 56 : 24 + 60], "little")
    return MappedImage(space, base, machine, magic == 0x20B, size, tuple(pairs), tuple(sections))


def native_header(image: MappedImage, magic: bytes) -> int:
    """The RVA of the ManagedNativeHeader that the CLR header names and that begins with `magic`; 0 for none.

    Source: IMAGE_COR20_HEADER (corhdr.h).
    """
    rva, size = image.directory(CLR_HEADER)
    entry = image.read(rva + 64, 4) if size >= 72 else None
    at = int.from_bytes(entry or b"", "little")
    return at if at and image.read(at, len(magic)) == magic else 0


def export_rva(image: MappedImage, name: str) -> int | None:
    """The RVA of an export, found by a binary search: the names of an export table are sorted."""
    rva, size = image.directory(EXPORTS)
    table = image.read(rva, 40) if size else None
    if table is None:
        return None
    functions, count, at_functions, at_names, at_ordinals = struct.unpack_from("<IIIII", table, 20)
    low, high, wanted = 0, min(count, _MOST_ENTRIES), name.encode()
    while low < high:
        middle = (low + high) // 2
        found = _text(image, _dword(image, at_names + 4 * middle))
        if found is None:
            return None
        if found == wanted:
            ordinal = int.from_bytes(image.read(at_ordinals + 2 * middle, 2) or b"\xff\xff", "little")
            return _dword(image, at_functions + 4 * ordinal) if ordinal < functions else None
        low, high = (middle + 1, high) if found < wanted else (low, middle)
    return None


def _text(image: MappedImage, rva: int | None) -> bytes | None:
    """A zero-ended name; read in small steps, as it may end at the end of memory."""
    if rva is None:
        return None
    out = b""
    while len(out) < _LONGEST_NAME:
        piece = image.read(rva + len(out), 32) or image.read(rva + len(out), 1)
        if not piece:
            return None
        out += piece
        if b"\0" in piece:
            return out.partition(b"\0")[0]
    return out


def _dword(image: MappedImage, rva: int) -> int | None:
    data = image.read(rva, 4)
    return None if data is None else int.from_bytes(data, "little")


def named_resource(image: MappedImage, name: str) -> bytes | None:
    """The bytes of the RCDATA resource of a name; None where the image has none."""
    root, size = image.directory(RESOURCES)
    kind = _entry(image, root, root, _RCDATA) if size else None
    named = _entry(image, root, root + (kind & 0x7FFFFFFF), name) if kind is not None and kind >> 31 else None
    language = _entry(image, root, root + (named & 0x7FFFFFFF), None) if named is not None and named >> 31 else None
    leaf = image.read(root + language, 8) if language is not None and not language >> 31 else None
    if leaf is None:
        return None
    rva, length = struct.unpack("<II", leaf)
    return image.read(rva, length) if length <= _MOST_ENTRIES else None


def _entry(image: MappedImage, root: int, at: int, wanted: int | str | None) -> int | None:
    """What the entry of a resource directory leads to: by number, by name, or the first one (None)."""
    head = image.read(at, 16)
    if head is None:
        return None
    named, numbered = struct.unpack_from("<HH", head, 12)
    rows = image.read(at + 16, 8 * (named + numbered))
    for key, target in struct.iter_unpack("<II", rows or b""):
        if wanted is None or key == wanted:
            return int(target)
        if isinstance(wanted, str) and key >> 31:
            length = int.from_bytes(image.read(root + (key & 0x7FFFFFFF), 2) or b"", "little")
            text = image.read(root + (key & 0x7FFFFFFF) + 2, 2 * length)
            if text is not None and text.decode("utf-16-le", "replace") == wanted:
                return int(target)
    return None
