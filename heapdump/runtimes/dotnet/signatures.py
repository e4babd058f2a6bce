"""Types and parameter lists from signatures, in the words of `names`.

Source: ECMA-335 II.23.2.

    method  u8 flags: 10 generic (u number of parameters), u parameters, return type, types
    type    II.23.2.12; in ready-to-run images also 3B u variable, 3D type, 3E System.__Canon, 3F u module, type
"""

from __future__ import annotations

from heapdump.runtimes.dotnet.metadata import TYPE_DEF, Metadata

_SIMPLE = dict(enumerate((
    "Void", "Boolean", "Char", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Single",
    "Double", "String",
), 1)) | {0x16: "TypedReference", 0x18: "IntPtr", 0x19: "UIntPtr", 0x1C: "Object", 0x3E: "__Canon"}  # fmt: skip
_SUFFIX = {0x0F: "*", 0x10: "&", 0x1D: "[]"}
_POINTER_TO_METHOD, _REQUIRED, _OPTIONAL, _SENTINEL, _PINNED = 0x1B, 0x1F, 0x20, 0x41, 0x45
_GENERIC = 0x10
_DEPTH, _MOST_PARAMETERS = 32, 256


class SignatureReader:
    """Reads a signature from a place on. Every step raises IndexError or ValueError for bytes that are no signature."""

    def __init__(self, data: bytes, at: int, metadata: Metadata) -> None:
        """`metadata`: of the module whose types the signature names.

        Raises:
            ValueError: the place is outside of the data.
        """
        self.data, self.at, self.metadata = data, at, metadata
        if not 0 <= at < len(data):
            raise ValueError("a signature outside of its section")

    def number(self) -> int:
        """A compressed unsigned number (II.23.2)."""
        data, at = self.data, self.at
        first = data[at]
        length = 1 if first < 0x80 else 2 if first < 0xC0 else 4
        self.at += length
        value = int.from_bytes(data[at : at + length], "big")
        return value & (0x7F, 0x3FFF, 0, 0x1FFFFFFF)[length - 1]

    def parameters(self, depth: int = 0) -> list[str]:
        """The types of a method's parameters; the place is that of its flags."""
        flags = self.data[self.at]
        self.at += 1
        if flags & _GENERIC:
            self.number()
        count = self.number()
        if count > _MOST_PARAMETERS:
            raise ValueError(f"{count} parameters")
        self.type(depth)
        return [self.type(depth) for _ in range(count)]

    def type(self, depth: int) -> str:
        """The name of a type; `?` where only another module's metadata has it."""
        if depth > _DEPTH:
            raise ValueError("types nested too deep")
        kind = self._kind()
        if kind in _SIMPLE:
            return f"System.{_SIMPLE[kind]}"
        if kind in (0x11, 0x12):
            return self._named(self.number())
        if kind in _SUFFIX:
            return self.type(depth + 1) + _SUFFIX[kind]
        if kind in (0x13, 0x1E, 0x3B):
            return self.variable(kind == 0x1E, self.number())
        return self._compound(kind, depth)

    def _compound(self, kind: int, depth: int) -> str:
        """An instantiation, an array, a pointer to a method, or a type of another module."""
        if kind == 0x15:
            self.at += 1
            name = self._named(self.number())
            return f"{name}<{','.join(self.type(depth + 1) for _ in range(self.number()))}>"
        if kind == 0x14:
            return self._array(depth)
        if kind == _POINTER_TO_METHOD:
            return f"method({','.join(self.parameters(depth + 1))})"
        if kind not in (0x3D, 0x3F):
            raise ValueError(f"an element type {kind:#x}")
        if kind == 0x3F:
            self.number()
        self.type(depth + 1)
        return "?"

    def variable(self, of_method: bool, number: int) -> str:
        """The name of a generic parameter."""
        return f"{'!!' if of_method else '!'}{number}"

    def _kind(self) -> int:
        """The element type, behind what only modifies it."""
        while True:
            kind = self.data[self.at]
            self.at += 1
            if kind in (_REQUIRED, _OPTIONAL):
                self.number()
            elif kind not in (_SENTINEL, _PINNED):
                return kind

    def _array(self, depth: int) -> str:
        element, rank = self.type(depth + 1), self.number()
        for _ in range(2):
            for _ in range(self.number()):
                self.number()
        return f"{element}[{',' * (rank - 1)}]"

    def _named(self, coded: int) -> str:
        """A TypeDef or TypeRef by its coded token."""
        row = coded >> 2
        if coded & 3 == 0:
            return self.metadata.type_name(TYPE_DEF << 24 | row) or "?"
        return self.metadata.reference_name(row) or "?" if coded & 3 == 1 else "?"


class _OfMethod(SignatureReader):
    """The signature of a MethodDef: generic parameters by their names."""

    def __init__(self, data: bytes, metadata: Metadata, token: int) -> None:
        super().__init__(data, 0, metadata)
        self._token = token

    def variable(self, of_method: bool, number: int) -> str:
        """`T` of the method, or of the type that declares it."""
        owner = self._token if of_method else self.metadata.owner_of_method(self._token)
        return self.metadata.parameter_name(owner or 0, number) or super().variable(of_method, number)


def parameter_list(metadata: Metadata, token: int) -> str | None:
    """`(System.Int32, System.Collections.Generic.List<T>)` of a MethodDef; None where its signature is not there."""
    data = metadata.signature(token)
    try:
        return f"({', '.join(_OfMethod(data, metadata, token).parameters())})" if data else None
    except (IndexError, ValueError):
        return None
