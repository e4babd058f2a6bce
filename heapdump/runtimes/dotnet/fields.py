"""Fields of objects: the name of the field at an offset, by the FieldDescs of a type and of its parents.

FieldDesc: the MethodTable that declares it; u32 with the token's row in the low 24 bits (17 up to 3.1, unless bit 31 is
set), bit 24 static; u32 with the offset behind the object's MethodTable in the low 27 bits. The metadata must say
that the field belongs to the type. Source: field.h of the runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from heapdump.runtimes.dotnet.names import Names
from heapdump.runtimes.dotnet.structures import MethodTable

_MOST_FIELDS, _MOST_PARENTS = 2048, 64
_STATIC, _OFFSET_MASK = 1 << 24, (1 << 27) - 1
_TOKEN_MASKS = (0xFFFFFF, 0x1FFFF)


class Fields:
    """Instance fields of the types of one CLR."""

    def __init__(self, names: Names) -> None:
        """Reads nothing yet."""
        self._names, self._structures = names, names.structures
        self.of_type = cache(self._of_type)

    def at(self, table: MethodTable, offset: int) -> str | None:
        """The field that holds an offset in an object: `_handle`, `_value+0x8`; None where none is known."""
        pointer = self._structures.pointer
        if table.is_array:
            return self._element(table, offset)
        fields = self.of_type(table.address)
        below = [(place, name) for place, name in fields if place <= offset - pointer]
        if not below:
            return None
        place, name = max(below)
        rest = offset - pointer - place
        return f"{name}+{rest:#x}" if rest else name

    def _element(self, table: MethodTable, offset: int) -> str | None:
        start = table.base_size - self._structures.pointer
        if not table.component_bytes or offset < start:
            return None
        index, rest = divmod(offset - start, table.component_bytes)
        return f"[{index}]" + (f"+{rest:#x}" if rest else "")

    def _of_type(self, address: int) -> tuple[tuple[int, str], ...]:
        """(offset behind the MethodTable, name) of the fields of a type, its parents' included."""
        out, seen = list[tuple[int, str]](), set[int]()
        while address and address not in seen and len(seen) < _MOST_PARENTS:
            seen.add(address)
            table = self._structures.method_table(address)
            if table is None:
                break
            out += self._declared(table)
            address = self._parent(table)
        return tuple(out)

    def _parent(self, table: MethodTable) -> int:
        """The MethodTable of the base type; up to 3.1 perhaps relative, or a pointer to it. 0 where there is none."""
        value = table.parent
        direct = (value, self._structures.relative(table.address + 0x10, value)) if value else ()
        behind = (self._structures.space.try_pointer(one & ~1) or 0 for one in direct)
        return next((one for one in (*direct, *behind) if one and self._structures.method_table(one)), 0)

    def _declared(self, table: MethodTable) -> Iterator[tuple[int, str]]:
        """The fields that a type itself declares; statics end the list."""
        home = self._names.home(table.address)
        structures, p = self._structures, self._structures.pointer
        slot = table.ee_class + structures.fields_at
        first = structures.space.try_pointer(slot)
        if home is None or not first:
            return
        metadata = home[0].metadata
        for start in (first, structures.relative(slot, first)):
            found = 0
            for i in range(_MOST_FIELDS):
                data = structures.space.try_read(start + i * (p + 8), p + 8)
                if data is None or not self._declares(start + i * (p + 8), data, table):
                    break
                word, place = int.from_bytes(data[p : p + 4], "little"), int.from_bytes(data[p + 4 :], "little")
                tokens = [0x04000000 | word & mask for mask in _TOKEN_MASKS]
                token = next((one for one in tokens if metadata.owner_of_field(one) == table.token), None)
                if token is None or word & _STATIC:
                    break
                found += 1
                yield place & _OFFSET_MASK, metadata.field_name(token) or "?"
            if found:
                return

    def _declares(self, address: int, data: bytes, table: MethodTable) -> bool:
        value = int.from_bytes(data[: self._structures.pointer], "little")
        return table.canonical in (value, self._structures.relative(address, value))
