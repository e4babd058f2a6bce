"""The tables in which HotSpot names its structures for debuggers: fields, sizes of types, integer constants.

jvm.dll exports a pointer to each table, and the offsets of the members of its entries (HotSpot's vmStructs.hpp). An
entry of the fields names type, field, type of the field, and the offset in the structure, or the address of a static.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from heapdump.memory.space import AddressSpace
from heapdump.process.model import Module, View
from heapdump.process.symbols.images import open_image

_MOST_ENTRIES = 1 << 14
_LONGEST_NAME = 200
_MOST_SYMBOL_BYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class VmField:
    """A field of a structure of the VM.

    Attributes:
        type: its type as the VM writes it.
        offset: bytes from the start of the structure.
        address: of a static field; 0 for others.
    """

    type: str
    offset: int
    address: int


class VmStructs:
    """The fields, sizes and constants of one VM, by name; reads of structures by the names of their fields."""

    def __init__(self, space: AddressSpace, base: int, exports: Mapping[str, int]) -> None:
        """`base`: of jvm.dll; `exports`: name → RVA."""
        self.space, self._base, self._exports = space, base, exports

    @cached_property
    def fields(self) -> dict[tuple[str, str], VmField]:
        """(type, field) → the field."""
        out = {}
        for entry in self._entries("Struct", "gHotSpotVMStructs"):
            owner, name = self._string(entry, "StructEntryTypeName"), self._string(entry, "StructEntryFieldName")
            words = self._string(entry, "StructEntryTypeString")
            offset, address = self._word(entry, "StructEntryOffset"), self._word(entry, "StructEntryAddress")
            out[owner, name] = VmField(words, offset, address)
        return out

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Type → its size in bytes."""
        rows = self._entries("Type", "gHotSpotVMTypes")
        return {self._string(entry, "TypeEntryTypeName"): self._word(entry, "TypeEntrySize") for entry in rows}

    @cached_property
    def constants(self) -> dict[str, int]:
        """Name → value of an integer constant."""
        ints = self._entries("IntConstant", "gHotSpotVMIntConstants")
        return {
            self._string(e, "IntConstantEntryName"): self._word(e, "IntConstantEntryValue") & 0xFFFFFFFF for e in ints
        }

    def has(self, *names: tuple[str, str]) -> bool:
        """True when the VM names all of these fields."""
        return all(name in self.fields for name in names)

    def static(self, owner: str, name: str, size: int = 0) -> int | None:
        """The value of a static, `size` bytes, by default a pointer; None where it is not named or not in the dump."""
        found = self.fields.get((owner, name))
        return None if found is None or not found.address else self._value(found.address, size)

    def member(self, address: int | None, owner: str, name: str, size: int = 0) -> int | None:
        """The value of a member of the structure at an address; None as for `static`, and for address 0."""
        found = self.fields.get((owner, name))
        return None if found is None or not address else self._value(address + found.offset, size)

    def inside(self, address: int | None, owner: str, name: str) -> int | None:
        """The address of a member that is a structure itself; None where the VM does not name it, and for address 0."""
        found = self.fields.get((owner, name))
        return None if found is None or not address else address + found.offset

    def symbol(self, address: int | None) -> str | None:
        """The text of the `Symbol` at an address; None where it is not in the dump."""
        length, body = self.member(address, "Symbol", "_length", 2), self.fields.get(("Symbol", "_body[0]"))
        body = body or self.fields.get(("Symbol", "_body"))
        if address is None or length is None or body is None or length > _MOST_SYMBOL_BYTES:
            return None
        data = self.space.try_read(address + body.offset, length)
        return None if data is None else data.decode("utf-8", "replace")

    def text(self, address: int | None) -> str | None:
        """The zero-ended text at an address; None where it is not in the dump."""
        if not address:
            return None
        for size in (_LONGEST_NAME, 32, 8):
            data = self.space.try_read(address, size)
            if data is not None and (b"\0" in data or size == _LONGEST_NAME):
                return data.partition(b"\0")[0].decode("utf-8", "replace")
        return None

    def _value(self, address: int, size: int) -> int | None:
        return self.space.try_integer(address, size or self.space.pointer_bytes)

    def _export(self, name: str) -> int | None:
        rva = self._exports.get(name)
        return None if rva is None else self.space.try_integer(self._base + rva, 8)

    def _entries(self, kind: str, table: str) -> Iterator[int]:
        """The addresses of a table's entries; the last one has no name."""
        rva, stride = self._exports.get(table), self._export(f"gHotSpotVM{kind}EntryArrayStride")
        first = self.space.try_pointer(self._base + rva) if rva is not None else None
        named = "TypeName" if kind in ("Struct", "Type") else "Name"
        for i in range(_MOST_ENTRIES if first and stride else 0):
            entry = (first or 0) + i * (stride or 0)
            if not self._word(entry, f"{kind}Entry{named}"):
                return
            yield entry

    def _word(self, entry: int, member: str) -> int:
        offset = self._export(f"gHotSpotVM{member}Offset")
        return 0 if offset is None else self.space.try_pointer(entry + offset) or 0

    def _string(self, entry: int, member: str) -> str:
        return self.text(self._word(entry, member)) or ""


def read_vm_structs(view: View, module: Module) -> VmStructs | None:
    """The tables of jvm.dll; None where it is of another processor, or its exports are not in the dump."""
    image = open_image(view.space, module, None)
    if image is None or image.is_x64 != (view.pointer_bytes == 8):
        return None
    exports = dict(zip(image.exports.names, image.exports.rva.tolist(), strict=True))
    if "gHotSpotVMStructs" not in exports:
        return None
    structs = VmStructs(view.space, module.span.start, exports)
    return structs if structs.has(("Universe", "_collectedHeap")) else None
