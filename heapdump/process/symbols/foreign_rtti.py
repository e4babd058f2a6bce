"""Class names of objects whose compiler is not Visual C++: GCC and Clang (MinGW), Delphi and C++Builder, Free Pascal.

    Itanium C++ ABI        before a vtable: offset to the top, pointer to type information { vtable; name }
    Delphi (System.pas)    before a method table: pointer to itself, … class name (ShortString), size of an instance
    Free Pascal (objpas)   a method table begins: size of an instance, the same negative, parent, class name

Second witnesses: type information is an object of the ABI's own classes, which their type information names; a table of
Delphi names its own address; the two sizes of Free Pascal. What the dump does not hold is no evidence.
"""

from __future__ import annotations

import re

from heapdump.process.model import Module, Process, View
from heapdump.process.symbols.class_name import ClassName
from heapdump.process.symbols.itanium_names import itanium_name

_LONGEST = 4096
_ABI_CLASSES = (
    "N10__cxxabiv117__class_type_infoE", "N10__cxxabiv120__si_class_type_infoE",
    "N10__cxxabiv121__vmi_class_type_infoE",
)  # fmt: skip
_MOST_OFFSET = 1 << 20
_MANGLED = re.compile(rb"\*?([A-Za-z0-9_]+)\0")
_SHORT_STRING = re.compile(rb"[A-Za-z_&][\w.<>,&: ]*")
_DELPHI_SELF, _DELPHI_NAME, _DELPHI_SIZE = -22, -14, -13
"""Words from the start of the method table of Delphi 2009 and later (vmtSelfPtr, vmtClassName, vmtInstanceSize)."""

_OLD_SELF, _OLD_NAME, _OLD_SIZE = -19, -11, -10
"""Likewise of Delphi 4 to 2007."""

_MOST_INSTANCE = 1 << 24
_PASCAL_NAME = 3


def foreign_class(process: Process, view: View, module: Module, vtable: int) -> ClassName | None:
    """The class whose virtual method table lies at `vtable`, in a module; None for a class of another compiler."""
    return (
        _itanium(process, view, module, vtable)
        or _delphi(view, module, vtable, (_DELPHI_SELF, _DELPHI_NAME, _DELPHI_SIZE))
        or _delphi(view, module, vtable, (_OLD_SELF, _OLD_NAME, _OLD_SIZE))
        or _free_pascal(view, module, vtable)
    )


def _word(view: View, address: int) -> int:
    """The pointer at an address, 0 where the dump does not hold it."""
    return view.space.try_pointer(address) or 0


def _itanium(process: Process, view: View, module: Module, vtable: int) -> ClassName | None:
    width = view.pointer_bytes
    to_top = -_word(view, vtable - 2 * width) & (1 << 8 * width) - 1
    if to_top > _MOST_OFFSET:
        return None
    name = _type_name(process, view, _word(view, vtable - width))
    if name is None:
        return None
    abi_table = _word(view, _word(view, vtable - width))
    if _type_name(process, view, _word(view, abi_table - width)) not in _ABI_CLASSES:
        return None
    return ClassName(itanium_name(name), name, "class", module)


def _type_name(process: Process, view: View, information: int) -> str | None:
    """The name in type information at an address of an image."""
    width = view.pointer_bytes
    if information % width or process.module_map.at(information) is None:
        return None
    at = _word(view, information + width)
    if process.module_map.at(at) is None:
        return None
    match = _MANGLED.match(_text(view, at))
    return None if match is None else match[1].decode("ascii")


def _text(view: View, address: int) -> bytes:
    """The bytes from an address on, up to a zero and some more."""
    data = b""
    while len(data) < _LONGEST and b"\0" not in data:
        more = view.space.try_read(address + len(data), 16)
        if more is None:
            break
        data += more
    return data


def _delphi(view: View, module: Module, table: int, places: tuple[int, int, int]) -> ClassName | None:
    """`places`: words from the table's start where its own address, the name and the size of an instance stand."""
    width = view.pointer_bytes
    itself, name, size = (_word(view, table + place * width) for place in places)
    if itself != table or not width <= size <= _MOST_INSTANCE:
        return None
    return _pascal_class(view, module, name)


def _free_pascal(view: View, module: Module, table: int) -> ClassName | None:
    width = view.pointer_bytes
    size, negative = _word(view, table), _word(view, table + width)
    if not width <= size <= _MOST_INSTANCE or size + negative != 1 << 8 * width:
        return None
    return _pascal_class(view, module, _word(view, table + _PASCAL_NAME * width))


def _pascal_class(view: View, module: Module, address: int) -> ClassName | None:
    """The class with the ShortString at an address of its module."""
    if address not in module.span:
        return None
    length = view.space.try_integer(address, 1) or 0
    name = view.space.try_read(address + 1, length) if length else None
    if name is None or not _SHORT_STRING.fullmatch(name):
        return None
    text = name.decode("ascii")
    return ClassName(text, text, "class", module)
