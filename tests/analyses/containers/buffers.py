"""Containers with one buffer, laid out by hand: libc++, Qt 5 and 6, MFC, Rust, arrays with a capacity."""

from __future__ import annotations

from dataclasses import dataclass

from tests.analyses.types.test_block_types import Blocks
from tests.builders import ProcessBuilder


@dataclass
class Member:
    """The bytes of a container in its owner, its kind, what it uses and has, in bytes; its buffer."""

    content: bytes
    kind: str
    used: int
    capacity: int
    buffer: int


class Buffers(Blocks):
    """Blocks with containers of one buffer."""

    @property
    def module_data(self) -> int:
        """An address in the data of the program's module."""
        return ProcessBuilder(arch=self.arch, build=19041).plan.exe + 0xB100

    def ints(self, *values: int) -> bytes:
        """Integers of 4 bytes."""
        return b"".join((value & 0xFFFFFFFF).to_bytes(4, "little") for value in values)

    def llvm_string(self, text: str, capacity: int, width: int = 1) -> Member:
        """A long std::string (1) or std::wstring (2) of libc++; `capacity` with the zero, in characters."""
        data = text.encode("latin-1" if width == 1 else "utf-16-le")
        buffer = self.add(data, capacity * width)
        kind = "std::string (libc++)" if width == 1 else "std::wstring (libc++)"
        words = self.words(capacity | 1, len(text), buffer)
        return Member(words, kind, len(data), (capacity - 1) * width, buffer)

    def qt5(self, kind: str, content: bytes, capacity: int, element: int) -> Member:
        """QString, QByteArray, QVector of Qt 5."""
        size, header = len(content) // element, 24 if self.pointer == 8 else 16
        head = self.ints(1, size, capacity | 1 << 31)
        head = (head + b"\xee" * 4 if self.pointer == 8 else head) + self.words(header)
        buffer = self.add(head + content, header + capacity * element)
        return Member(self.words(buffer), kind, len(content), capacity * element, buffer)

    def qt5_list(self, many: int, capacity: int, begin: int = 1) -> Member:
        """A QList of Qt 5 that holds pointers."""
        elements = [self.add(b"element %d" % i, 40) for i in range(many)]
        content = self.ints(1, capacity, begin, begin + many) + self.words(*[0xEE] * begin, *elements)
        buffer = self.add(content, 16 + capacity * self.pointer)
        return Member(self.words(buffer), "QList", many * self.pointer, capacity * self.pointer, buffer)

    def qt6(self, kind: str, content: bytes, capacity: int, element: int, more: int = 0) -> Member:
        """QString, QByteArray, QList of Qt 6; `more` bytes behind the capacity."""
        header = 16 if self.pointer == 8 else 12
        buffer = self.add(self.ints(1, 0) + self.words(capacity) + content, header + capacity * element + more)
        words = self.words(buffer, buffer + header, len(content) // element)
        return Member(words, kind, len(content), capacity * element, buffer)

    def cstring(self, text: str, capacity: int, width: int = 1) -> Member:
        """A CString of ATL and MFC."""
        data = text.encode("latin-1" if width == 1 else "utf-16-le")
        head = self.words(self.module_data) + self.ints(len(text), capacity, 1)
        header = 24 if self.pointer == 8 else 16
        buffer = self.add(head.ljust(header, b"\xee") + data, header + (capacity + 1) * width)
        return Member(self.words(buffer + header), "CString", len(data), capacity * width, buffer)

    def hash_map(self, many: int, buckets: int, element: int, *, is_old: bool = False) -> Member:
        """A HashMap of Rust."""
        control = bytes(7 * i % 128 if i < many else 0xFF for i in range(buckets))
        behind = (control + control)[:16] if buckets >= 16 else control.ljust(16, b"\xff")
        data = buckets * element + 15 & ~15
        buffer = self.add(b"\x11" * data + control + behind)
        room = (buckets // 8 * 7 if buckets > 8 else buckets - 1) - many
        first = (buckets - 1, buffer + data) if is_old else (buffer + data, buckets - 1)
        return Member(self.words(*first, room, many), "HashMap (Rust)", many * element, buckets * element, buffer)

    def counted(self, order: int, many: int, capacity: int, element: int, content: bytes = b"") -> Member:
        """An array with a capacity in one of five orders of its words."""
        buffer = self.add(content or b"\x01" * (many * element), capacity * element)
        words = (
            self.words(capacity, buffer, many), self.words(buffer, capacity, many), self.words(buffer, many, capacity),
            self.words(buffer) + self.ints(many, capacity), self.words(buffer) + self.ints(capacity, many),
        )[order]  # fmt: skip
        return Member(words, "array with capacity", many * element, capacity * element, buffer)
