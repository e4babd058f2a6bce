"""MethodDesc, MethodTable and EEClass, in the layouts of all releases; each structure proves itself.

Offsets come from the contract descriptor where there is one, else from the constants here, which hold from 2.1 to 8.
What differs between releases (`Dialect`) is decided by a vote over methods of the process: the choice whose
MethodTables pass `method_table` and whose methods belong to the type of their MethodTable (`names.vote`). Source:
method.hpp, methodtable.h, class.h of the runtime; docs/reference/managed-code.md §3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from heapdump.memory.space import AddressSpace
from heapdump.runtimes.dotnet.descriptor import Descriptor

GENERIC_INSTANTIATION, DYNAMIC = 5, 7
"""Kinds of a MethodDesc, the low 3 bits of its flags: an instantiated generic method, one without metadata."""

_HAS_COMPONENTS, _GENERICS_MASK, _TYPICAL = 0x80000000, 0x30, 0x30
_CATEGORY_MASK, _VECTOR, _ARRAY_MASK, _ARRAY, _FINALIZER = 0xF0000, 0xA0000, 0xC0000, 0x80000, 0x100000
_MOST_ARGUMENTS = 64
_NO_TOKEN = 0xFFFF
_MOST_BASE = 1 << 24
"""Bytes of the largest object without elements that is believed."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between releases and is decided by a vote.

    `token_bits`: of a method's token that its MethodDesc holds; the others are its chunk's. `relative_chunk`: the
    MethodTable of a chunk is relative to its own place (up to 3.1); `relative_type`: also the module of a MethodTable
    and the MethodTable of an EEClass (2.1, 2.2). `wide_token`: a type's token is the upper 24 bits of the u32 at 8
    (from 9 on), else a u16 at 10.
    """

    token_bits: int = 14
    relative_chunk: bool = False
    relative_type: bool = False
    wide_token: bool = False


DIALECTS = tuple(
    Dialect(bits, chunk, type_, token)
    for token in (False, True)
    for bits in (14, 12, 13)
    for chunk, type_ in ((False, False), (True, False), (True, True))
)
"""Every dialect that is tried."""


@dataclass(frozen=True, slots=True)
class Method:
    """A MethodDesc.

    Attributes:
        address: of the MethodDesc.
        token: of its MethodDef; 0 for a dynamic method.
        kind: 3 bits, see `GENERIC_INSTANTIATION` and `DYNAMIC`.
        table: address of its MethodTable.
    """

    address: int
    token: int
    kind: int
    table: int


@dataclass(frozen=True, slots=True)
class MethodTable:
    """A MethodTable that passed the self-check. Members are addresses where nothing else is said.

    Attributes:
        address: of the MethodTable.
        flags: u32, see `methodtable.h`.
        base_size: bytes of an object without elements, header included.
        component_bytes: bytes of one element of an array or string; 0 for other types.
        token: of its TypeDef; 0 where it is not known.
        parent: the MethodTable of the base type.
        module: the Module of its loader (up to 7), or its own.
        canonical: the MethodTable with which it shares code.
        ee_class: its EEClass.
        element: of an array the type handle of its elements, of a generic type the dictionary with its arguments.
    """

    address: int
    flags: int
    base_size: int
    component_bytes: int
    token: int
    parent: int
    module: int
    canonical: int
    ee_class: int
    element: int

    @property
    def is_array(self) -> bool:
        """True for a type of arrays."""
        return self.flags & _ARRAY_MASK == _ARRAY

    @property
    def has_arguments(self) -> bool:
        """True for an instantiation of a generic type."""
        return not self.flags & _HAS_COMPONENTS and bool(self.flags & _GENERICS_MASK)

    @property
    def has_finalizer(self) -> bool:
        """True for a type whose objects have a finalizer."""
        return bool(self.flags & _FINALIZER)

    def rank(self, pointer: int) -> int:
        """Dimensions of an array; 0 for a vector.

        Two i32 a dimension lie behind the 3 words of an array's header. `pointer`: bytes of a pointer.
        """
        return 0 if self.flags & _CATEGORY_MASK == _VECTOR else max(0, self.base_size - 3 * pointer) // 8


class Structures:
    """Reads the structures of one CLR in one dialect."""

    def __init__(self, space: AddressSpace, descriptor: Descriptor, dialect: Dialect) -> None:
        """Reads nothing yet."""
        self.space, self.dialect, self.pointer = space, dialect, space.pointer_bytes
        p = self.pointer

        def offset(type_: str, member: str, default: int) -> int:
            """The descriptor's offset, else the default."""
            found = descriptor.offset(type_, member)
            return default if found is None else found

        self._bits = descriptor.globals.get("MethodDescTokenRemainderBitCount", dialect.token_bits)
        self._chunk_bytes = offset("MethodDescChunk", "!", 24 if p == 8 else 12)
        self._module_at = offset("MethodTable", "Module", 0x10 + p)
        self._class_at = offset("MethodTable", "EEClassOrCanonMT", 0x10 + 3 * p)
        self._instance_at = offset("MethodTable", "PerInstInfo", 0x10 + 4 * p)
        self._table_bytes = 0x10 + 6 * p
        self._class_table_at = offset("EEClass", "MethodTable", 2 * p)
        self._chunks_at = offset("EEClass", "MethodDescChunk", 4 * p)
        self._name_at = descriptor.offset("DynamicMethodDesc", "MethodName")
        self._method_arguments_at = descriptor.offset("InstantiatedMethodDesc", "PerInstInfo")
        self.fields_at = offset("EEClass", "FieldDescList", 3 * p)
        self.method_table = cache(self._method_table)

    def relative(self, address: int, value: int) -> int:
        """The address that a pointer relative to its own address leads to."""
        return (value + address) & ((1 << 8 * self.pointer) - 1)

    def _chunk_of(self, desc: int) -> int | None:
        index = self.space.try_integer(desc + 2, 1)
        return None if index is None else desc - self._chunk_bytes - index * self.pointer

    def method(self, desc: int) -> Method | None:
        """The MethodDesc at an address; None where its chunk's MethodTable is none."""
        head = self.space.try_read(desc, 8) if desc % self.pointer == 0 else None
        chunk = self._chunk_of(desc)
        tail = self.space.try_integer(chunk + 2 * self.pointer + 2, 2) if chunk and chunk > 0 else None
        if head is None or chunk is None or tail is None:
            return None
        table = self.chunk_table(chunk)
        if table is None or self.method_table(table) is None:
            return None
        low = int.from_bytes(head[:2], "little") & ((1 << self._bits) - 1)
        row = (tail & ((1 << 24 - self._bits) - 1)) << self._bits | low
        return Method(desc, 0x06000000 | row if row else 0, head[6] & 7, table)

    def token_parts(self, desc: int) -> tuple[int, int]:
        """(token range of its chunk, 14 bits of its own: token and flags) of a MethodDesc; 0 for what is not there."""
        chunk = self._chunk_of(desc)
        tail = self.space.try_integer(chunk + 2 * self.pointer + 2, 2) if chunk and chunk > 0 else None
        return tail or 0, (self.space.try_integer(desc, 2) or 0) & 0x3FFF

    def chunk_table(self, chunk: int) -> int | None:
        """The MethodTable of a chunk of MethodDescs."""
        value = self.space.try_pointer(chunk)
        if not value:
            return None
        if not self.dialect.relative_chunk:
            return value & ~1
        found = self.relative(chunk, value)
        return self.space.try_pointer(found & ~1) if found & 1 else found

    def _method_table(self, address: int) -> MethodTable | None:
        """The MethodTable at an address that passes the self-check: its EEClass leads back to the canonical one."""
        p = self.pointer
        data = self.space.try_read(address, self._table_bytes) if address % p == 0 and address > 0xFFFF else None
        if data is None:
            return None
        module = self._word(data, self._module_at)
        if self.dialect.relative_type and module:
            module = self.relative(address + self._module_at, module)
        flags, base = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little")
        found = self._class(address, self._word(data, self._class_at))
        if found is None or module % p or base > _MOST_BASE:
            return None
        canonical, ee_class = found
        token = int.from_bytes(data[8:12], "little") >> 8
        if not self.dialect.wide_token:
            token = int.from_bytes(data[10:12], "little")
            token = 0 if token == _NO_TOKEN else token
        component = flags & 0xFFFF if flags & _HAS_COMPONENTS else 0
        return MethodTable(
            address, flags, base, component, 0x02000000 | token if token else 0, self._word(data, 0x10), module,
            canonical, ee_class, self._word(data, self._instance_at),
        )  # fmt: skip

    def _word(self, data: bytes, at: int) -> int:
        return int.from_bytes(data[at : at + self.pointer], "little")

    def _class(self, address: int, value: int) -> tuple[int, int] | None:
        """(canonical MethodTable, EEClass) behind the field of a MethodTable.

        Its low 2 bits are 0 for an EEClass; 1 (from 5 on) or 2 (up to 3.1) for a canonical MethodTable; 3 for a pointer
        to such a field.
        """
        canonical = address
        if value & 3 == 3:
            value = self.space.try_pointer(value & ~3) or 0
        if value & 3 in (1, 2):
            canonical = value & ~3
            other = self.space.try_pointer(canonical + self._class_at)
            if other is None or other & 3:
                return None
            value = other
        if not value or value % self.pointer:
            return None
        back = self.space.try_pointer(value + self._class_table_at)
        if back is None:
            return None
        if self.dialect.relative_type:
            back = self.relative(value + self._class_table_at, back)
        return (canonical, value) if back == canonical else None

    def type_arguments(self, table: MethodTable) -> list[int] | None:
        """The type handles of a generic type's arguments; None where they cannot be read.

        The dictionary's pointer is preceded by u16 number of dictionaries, u16 number of arguments; the last dictionary
        holds the type's own arguments.
        """
        slot = table.address + self._instance_at
        for where in (table.element, self.relative(slot, table.element)):
            found = self._arguments_in(where) if table.element else None
            if found is not None:
                return found
        return None

    def _arguments_in(self, where: int) -> list[int] | None:
        counts = self.space.try_integer(where - 4, 4) if where > 4 else None
        if counts is None:
            return None
        dictionaries, arguments = counts & 0xFFFF, counts >> 16
        if not 1 <= dictionaries <= 256 or not 1 <= arguments <= _MOST_ARGUMENTS:
            return None
        slot = where + (dictionaries - 1) * self.pointer
        own = self.space.try_pointer(slot)
        if own is None:
            return None
        for start in (own, self.relative(slot, own)):
            handles = self.handles(start, arguments)
            if handles and all(self.method_table(one) or one & 2 for one in handles):
                return handles
        return None

    def handles(self, start: int, count: int) -> list[int]:
        """`count` type handles at an address; none where the dump lacks one of them. Bit 0: a pointer to the handle."""
        words = (self.space.try_pointer(start + i * self.pointer) for i in range(count))
        found = [self.space.try_pointer(one - 1) if one and one & 1 else one for one in words]
        return [one for one in found if one] if all(found) else []

    def method_arguments(self, method: Method) -> list[int]:
        """The type handles of a generic method's arguments; none for other methods."""
        p, known = self.pointer, self._method_arguments_at
        if method.kind != GENERIC_INSTANTIATION:
            return []
        for at in (8 + p, 16 + p) if known is None else (known,):
            slot = method.address + at
            own, count = self.space.try_pointer(slot), self.space.try_integer(slot + p + 2, 2)
            for start in (own, self.relative(slot, own)) if own and count and count <= _MOST_ARGUMENTS else ():
                handles = self.handles(start, count or 0)
                if handles and all(self.method_table(one) or one & 2 for one in handles):
                    return handles
        return []

    def dynamic_name(self, method: Method) -> str | None:
        """The name of a dynamic method (LCG, IL stubs): a pointer to UTF-8; None where nothing printable is there."""
        places = (8 + 2 * self.pointer, 16 + 2 * self.pointer)  # behind a MethodDesc of up to 8, of 9 and later
        for at in places if self._name_at is None else (self._name_at,):
            place = self.space.try_pointer(method.address + at)
            if place and (name := self.zero_ended(place) or self.zero_ended(self.relative(method.address + at, place))):
                return name  # relative in 2.x
        return None

    def zero_ended(self, address: int) -> str | None:
        """Printable UTF-8 text up to a zero byte; None for anything else."""
        out = b""
        while len(out) < 512:
            piece = self.space.try_read(address + len(out), 32) or self.space.try_read(address + len(out), 1)
            if not piece:
                return None
            out += piece
            if b"\0" in piece:
                break
        try:
            text = out.partition(b"\0")[0].decode()
        except UnicodeDecodeError:
            return None
        return text if text and text.isprintable() else None

    def first_method(self, table: MethodTable) -> Method | None:
        """The first MethodDesc of a type, by the chunks of its EEClass; it belongs to the canonical MethodTable."""
        slot = table.ee_class + self._chunks_at
        chunk = self.space.try_pointer(slot)
        if chunk and self.dialect.relative_type:
            chunk = self.relative(slot, chunk)
        found = self.method(chunk + self._chunk_bytes) if chunk and chunk % self.pointer == 0 else None
        return found if found is not None and found.table == table.canonical else None
