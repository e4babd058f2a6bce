"""Imports of an image: which slot of its import address table holds which function of which DLL.

IMAGE_IMPORT_DESCRIPTOR {names RVA, time stamp, forwarder chain, DLL name RVA, slots RVA}; delay-load descriptors have
{attributes, DLL name RVA, handle RVA, slots RVA, names RVA, …} (winnt.h, delayimp.h). A name is {hint u16, text}; an
entry with its highest bit set is an ordinal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

ReadRva = Callable[[int, int], bytes | None]
_MOST_DLLS, _MOST_FUNCTIONS = 1024, 1 << 15
_LONGEST_TEXT, _PIECES = 512, (64, 16, 4, 1)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported function.

    Attributes:
        dll: name of the DLL, as the image has it.
        name: name of the function; `#12` for an ordinal.
        slot: RVA of its pointer in the import address table.
        is_delayed: True where the pointer is set at the first call only (delay load).
    """

    dll: str
    name: str
    slot: int
    is_delayed: bool


def read_imports(read: ReadRva, table: int, delayed: int, *, is_wide: bool) -> tuple[Import, ...]:
    """The imported functions in the order of the tables, at most 32,768. Damaged or missing parts are left out.

    Args:
        read: (RVA, size) → bytes of the image; None where they are not there.
        table: RVA of the import directory; 0 for none.
        delayed: RVA of the delay-load directory; 0 for none.
        is_wide: True where pointers have 8 bytes.
    """
    pointer = 8 if is_wide else 4
    found: list[Import] = []
    for dll, names, slots, is_delayed in (*_descriptors(read, table), *_delayed(read, delayed)):
        for number, name in enumerate(_names(read, names or slots, pointer)):
            found.append(Import(dll, name, slots + number * pointer, is_delayed))
            if len(found) >= _MOST_FUNCTIONS:
                return tuple(found)
    return tuple(found)


def _descriptors(read: ReadRva, rva: int) -> Iterator[tuple[str, int, int, bool]]:
    """(DLL, RVA of its names, RVA of its slots, False) for each descriptor."""
    for i in range(_MOST_DLLS if rva else 0):
        words = _words(read(rva + 20 * i, 20))
        if not words or not words[3] or not words[4]:
            return
        yield text_at(read, words[3]), words[0], words[4], False


def _delayed(read: ReadRva, rva: int) -> Iterator[tuple[str, int, int, bool]]:
    """The same for delay-load descriptors; those of attribute 0 hold addresses, which old compilers wrote."""
    for i in range(_MOST_DLLS if rva else 0):
        words = _words(read(rva + 32 * i, 32))
        if not words or not words[1] or not words[0] & 1:
            return
        yield text_at(read, words[1]), words[4], words[3], True


def _names(read: ReadRva, rva: int, pointer: int) -> Iterator[str]:
    """The names of the functions of one DLL, in order."""
    ordinal = 1 << 8 * pointer - 1
    for i in range(_MOST_FUNCTIONS):
        data = read(rva + i * pointer, pointer)
        entry = int.from_bytes(data, "little") if data else 0
        if not entry:
            return
        yield f"#{entry & 0xFFFF}" if entry & ordinal else text_at(read, (entry & 0x7FFFFFFF) + 2)


def text_at(read: ReadRva, rva: int) -> str:
    """The zero-ended text at an RVA, in Latin-1; "" where it is not there, has no zero, or is not printable."""
    data = b""
    while len(data) < _LONGEST_TEXT and b"\0" not in data:
        more = next((found for size in _PIECES if (found := read(rva + len(data), size)) is not None), None)
        if more is None:
            return ""
        data += more
    text, end, _ = data.partition(b"\0")
    plain = text.decode("latin-1")
    return plain if end and plain.isprintable() else ""


def _words(data: bytes | None) -> list[int]:
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)] if data else []
