"""Tables of a loaded image: imports, exports with forwarders, a version resource, laid out one behind the other.

In: what the image imports, exports and says. Out: the bytes of the tables at an RVA, and the 16 data directories. The
layout is restated by hand (winnt.h, winver.h); nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class ImageTables:
    """Tables in the making. `slots`: (DLL, function) → RVA of its slot."""

    rva: int
    pointer: int = 8
    data: bytearray = field(default_factory=bytearray)
    directories: dict[int, tuple[int, int]] = field(default_factory=dict)
    slots: dict[tuple[str, str], int] = field(default_factory=dict)

    def _place(self, size: int, align: int = 8) -> int:
        """RVA of the next free bytes."""
        self.data += bytes(-len(self.data) % align)
        at = self.rva + len(self.data)
        self.data += bytes(size)
        return at

    def _write(self, rva: int, data: bytes) -> None:
        self.data[rva - self.rva : rva - self.rva + len(data)] = data

    def _text(self, text: bytes) -> int:
        at = self._place(len(text) + 1, 2)
        self._write(at, text)
        return at

    def imports(self, dlls: Mapping[str, Mapping[str, int]]) -> None:
        """DLL → function (`#7` an ordinal) → what its slot holds."""
        table = self._place(20 * (len(dlls) + 1))
        word = "<Q" if self.pointer == 8 else "<I"
        for number, (dll, functions) in enumerate(dlls.items()):
            names = self._place(self.pointer * (len(functions) + 1))
            slots = self._place(self.pointer * (len(functions) + 1))
            for i, (function, target) in enumerate(functions.items()):
                if function.startswith("#"):
                    entry = 1 << 8 * self.pointer - 1 | int(function[1:])
                else:
                    entry = self._text(b"\0\0" + function.encode())
                self._write(names + i * self.pointer, struct.pack(word, entry))
                self._write(slots + i * self.pointer, struct.pack(word, target))
                self.slots[dll, function] = slots + i * self.pointer
            self._write(table + 20 * number, struct.pack("<5I", names, 0, 0, self._text(dll.encode()), slots))
        self.directories[1] = (table, 20 * (len(dlls) + 1))

    def exports(self, name: str, functions: Mapping[str, int], forwarders: Mapping[str, str]) -> None:
        """Function → RVA; function → `NTDLL.RtlAllocateHeap`."""
        table = self._place(40)
        every = sorted([*functions, *forwarders])
        addresses, names, ordinals = (
            self._place(4 * len(every)),
            self._place(4 * len(every)),
            self._place(2 * len(every)),
        )
        for i, function in enumerate(every):
            target = functions[function] if function in functions else self._text(forwarders[function].encode())
            self._write(addresses + 4 * i, struct.pack("<I", target))
            self._write(names + 4 * i, struct.pack("<I", self._text(function.encode())))
            self._write(ordinals + 2 * i, struct.pack("<H", i))
        own = self._text(name.encode())
        fields = (0, 0, 0, own, 1, len(every), len(every), addresses, names, ordinals)
        self._write(table, struct.pack("<10I", *fields))
        self.directories[0] = (table, self.rva + len(self.data) - table)

    def version(self, texts: Mapping[str, str]) -> None:
        """A version resource with these texts."""
        strings = b"".join(_node(key, value) for key, value in texts.items())
        info = _node("VS_VERSION_INFO", bytes(52), [_node("StringFileInfo", b"", [_node("040904b0", b"", [strings])])])
        root = self._place(24 * 3 + 16)
        for level, key in enumerate((16, 1, 0x409)):
            at = root + 24 * level
            deeper = 24 * (level + 1) | (1 << 31 if level < 2 else 0)
            self._write(at, struct.pack("<12xHHII", 0, 1, key, deeper))
        place = self._place(len(info), 4)
        self._write(place, info)
        self._write(root + 72, struct.pack("<4I", place, len(info), 0, 0))
        self.directories[2] = (root, self.rva + len(self.data) - root)

    def directory_bytes(self) -> bytes:
        """The 16 data directories."""
        return b"".join(struct.pack("<II", *self.directories.get(i, (0, 0))) for i in range(16))


def _node(key: str, value: bytes | str, children: Sequence[bytes] = ()) -> bytes:
    """A node of VS_VERSIONINFO."""
    raw = f"{value}\0".encode("utf-16-le") if isinstance(value, str) else value
    head = bytes(6) + f"{key}\0".encode("utf-16-le")
    body = head + bytes(-len(head) % 4) + raw
    for child in children:
        body += bytes(-len(body) % 4) + child
    count, kind = (len(raw) // 2, 1) if isinstance(value, str) else (len(raw), 0)
    whole = struct.pack("<HHH", len(body), count, kind) + body[6:]
    return whole + bytes(-len(whole) % 4)
