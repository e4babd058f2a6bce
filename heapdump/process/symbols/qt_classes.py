"""Class names of objects of Qt without type information, from their meta objects, in 64-bit and 32-bit code.

    vtable slot 0    const QMetaObject *metaObject() const, which loads the address of the class's staticMetaObject
    QMetaObject      { parent, in Qt 6 and on Windows a function, too; strings; numbers; … }
    numbers          { revision; place of the class name, 0; …; 14 numbers in all }
    strings          Qt 5, revisions to 8: { -1; length; 0; offset of the text from here }
                     Qt 6, revisions from 9 on: { offset of the text from here; length }

Source: `qobjectdefs.h`, `qmetaobject_p.h`, `qarraydata.h`, and what moc writes. Witnesses: revision, counts and their
places agree, the name is one of C++ and ends in a zero. A class without Q_OBJECT has the name of its base class.
"""

from __future__ import annotations

import re
import struct

from heapdump.process.model import Module, Process, View
from heapdump.process.symbols.class_name import ClassName

_CODE_BYTES, _JUMP, _MOST_JUMPS = 64, 0xE9, 2
_LOAD_64, _LOAD_32 = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15]"), re.compile(rb"[\xb8-\xba]")
"""lea of an address beside the code; mov of an address."""

_NUMBERS, _FIRST_OF_6, _NEWEST = 14, 9, 20
_MOST_METHODS, _LONGEST = 1 << 14, 255
_NAME = re.compile(rb"[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*")


def qt_class(process: Process, view: View, module: Module, vtable: int) -> ClassName | None:
    """The class of Qt whose vtable lies in a module; None for another class, and where the dump has not its image."""
    function, code, mask = view.space.try_pointer(vtable) or 0, b"", (1 << 8 * view.pointer_bytes) - 1
    for _ in range(_MOST_JUMPS + 1):
        code = (process.module_map.at(function) and view.space.try_read(function, _CODE_BYTES)) or b""
        if not code or code[0] != _JUMP:
            break
        function = function + 5 + struct.unpack_from("<i", code, 1)[0] & mask
    for place in _loaded(view, function, code):
        if process.module_map.at(place) is not None and place % view.pointer_bytes == 0:
            name = _name(view, place)
            if name is not None:
                return ClassName(name, name, "class", module)
    return None


def _loaded(view: View, function: int, code: bytes) -> list[int]:
    """The addresses that code loads."""
    if view.pointer_bytes == 8:
        found = [match.end() for match in _LOAD_64.finditer(code, 0, len(code) - 4)]
        return [function + end + 4 + struct.unpack_from("<i", code, end)[0] for end in found]
    return [struct.unpack_from("<I", code, match.end())[0] for match in _LOAD_32.finditer(code, 0, len(code) - 4)]


def _name(view: View, meta_object: int) -> str | None:
    """The class name of a meta object; None where there is none."""
    for parents in (1, 2):
        strings, numbers = (view.space.try_pointer(meta_object + (parents + i) * view.pointer_bytes) for i in (0, 1))
        raw = view.space.try_read(numbers, 4 * _NUMBERS) if strings and numbers else None
        if strings is None or raw is None:
            continue
        revision, name, *counts = struct.unpack(f"<{_NUMBERS}I", raw)
        if name == 0 and 1 <= revision <= _NEWEST and _are_counts(counts):
            return _text(view, strings, is_qt6=revision >= _FIRST_OF_6)
    return None


def _are_counts(numbers: list[int]) -> bool:
    """True for numbers of class information, methods, properties, enumerations, constructors; flags; signals."""
    pairs = list(zip(numbers[0:10:2], numbers[1:10:2], strict=True))
    fits = all(count < _MOST_METHODS and (not count or at >= _NUMBERS) for count, at in pairs)
    return fits and numbers[11] <= numbers[2]


def _text(view: View, strings: int, *, is_qt6: bool) -> str | None:
    """The first string."""
    wide = view.pointer_bytes == 8
    raw = view.space.try_read(strings, 8 if is_qt6 else 24 if wide else 16)
    if raw is None:
        return None
    if is_qt6:
        offset, length = struct.unpack("<II", raw)
    else:
        references, length, room, offset = struct.unpack("<iII4xq" if wide else "<iIIi", raw)
        if references != -1 or room != 0:
            return None
    text = view.space.try_read(strings + offset, length + 1) if 0 < length <= _LONGEST else None
    if text is None or text[-1] != 0 or not _NAME.fullmatch(text[:-1]):
        return None
    return text[:-1].decode("ascii")
