"""Class names of objects, from the run-time type information that compilers leave in images; no symbols needed.

Here that of MSVC; other compilers' is in `foreign_rtti.py`, that of Qt's own meta objects in `qt_classes.py`.

An object whose class has virtual bases, and no functions before theirs, begins with a pointer to a table of offsets:
{ 0; bytes to the first virtual base; … }, int32 each. There the object has the vtable; its locator repeats the offset.

A vtable's slot before the first leads to a complete object locator, that to a type descriptor with the decorated name
(`.?AVFoo@ns@@`). x64 locators hold offsets from the image base and name themselves, which is the second witness; x86
ones hold addresses, and the class hierarchy they point at is it. Layout: the compiler's own rttidata.h; all vtables of
the Visual C++ 14.44 runtime DLLs, x64 and x86, were named by it.
"""

from __future__ import annotations

import re

from heapdump.process.model import Module, Process, View
from heapdump.process.symbols.class_name import ClassName as ClassName
from heapdump.process.symbols.foreign_rtti import foreign_class
from heapdump.process.symbols.msvc_names import undecorated
from heapdump.process.symbols.qt_classes import qt_class

_LONGEST, _PIECE = 4096, 16
_MOST_OFFSET = 1 << 20
_LETTERS = {"V": "class", "U": "struct", "T": "union", "W4": "enum"}
_DECORATED = re.compile(rb"\.\?A(V|U|T|W4)([\x21-\x7e]+@)@\0", re.DOTALL)


def class_at(process: Process, view: View, address: int) -> ClassName | None:
    """The class of the object at an address, by the vtable that it leads to; None for no vtable."""
    table = view.space.try_pointer(address)
    if table is None:
        return None
    found = class_of_vtable(process, view, table)
    offset = 0 if found else offset_of_virtual_base(process, view, table)
    vtable = view.space.try_pointer(address + offset) if offset else None
    return found if vtable is None else class_of_virtual_base(process, view, vtable, offset)


def offset_of_virtual_base(process: Process, view: View, table: int) -> int:
    """Bytes from an object to its first virtual base, by the table that the object begins with; 0 for another table."""
    module = process.module_map.at(table)
    if module is None or table % 4 or view.space.try_integer(table, 4) != 0:
        return 0
    offset = view.space.try_integer(table + 4, 4) or 0
    return offset if offset % view.pointer_bytes == 0 and view.pointer_bytes < offset < _MOST_OFFSET else 0


def class_of_virtual_base(process: Process, view: View, vtable: int, offset: int) -> ClassName | None:
    """The class whose vtable of the virtual base at an offset of the object lies there; None for another vtable."""
    module = process.module_map.at(vtable)
    locator = view.space.try_pointer(vtable - view.pointer_bytes) if module else None
    if locator is None or view.space.try_integer(locator + 4, 4) != offset:
        return None
    return None if module is None or vtable % view.pointer_bytes else _msvc_class(view, module, vtable)


def offset_in_object(process: Process, view: View, vtable: int) -> int | None:
    """Bytes from the start of a whole object to its pointer to a vtable; None for a vtable of no known class.

    A class has further vtables for its second base class and so on.
    """
    module = process.module_map.at(vtable)
    if module is None or class_of_vtable(process, view, vtable) is None:
        return None
    if _msvc_class(view, module, vtable) is None:
        to_top = -(view.space.try_pointer(vtable - 2 * view.pointer_bytes) or 0) & (1 << 8 * view.pointer_bytes) - 1
        return to_top if to_top < _MOST_OFFSET else 0  # else no vtable of the Itanium ABI
    locator = view.space.try_pointer(vtable - view.pointer_bytes) or 0
    return view.space.try_integer(locator + 4, 4) or 0


def class_of_vtable(process: Process, view: View, vtable: int) -> ClassName | None:
    """The class whose vtable lies at an address; None for no vtable, and where the dump does not hold its image."""
    module = process.module_map.at(vtable)
    if module is None or vtable % view.pointer_bytes:
        return None
    return (
        _msvc_class(view, module, vtable)
        or foreign_class(process, view, module, vtable)
        or qt_class(process, view, module, vtable)
    )


def _msvc_class(view: View, module: Module, vtable: int) -> ClassName | None:
    locator = view.space.try_pointer(vtable - view.pointer_bytes)
    if locator is None or locator not in module.span:
        return None
    descriptor = _descriptor(view, module, locator)
    return None if descriptor is None or descriptor not in module.span else _name(view, module, descriptor)


def _descriptor(view: View, module: Module, locator: int) -> int | None:
    """The type descriptor that a complete object locator names, or None where it is no locator."""
    words = [view.space.try_integer(locator + 4 * i, 4) for i in range(6 if view.pointer_bytes == 8 else 5)]
    if None in words:
        return None
    signature, _, _, descriptor, hierarchy, *itself = (word or 0 for word in words)
    if view.pointer_bytes == 8:
        base = locator - itself[0]
        return base + descriptor if signature == 1 and base == module.span.start else None
    # the hierarchy: signature 0, attributes of two bits, 1 or more classes
    attributes, classes = (view.space.try_integer(hierarchy + offset, 4) for offset in (4, 8))
    if signature or hierarchy not in module.span or attributes is None or attributes > 7 or not classes:
        return None
    return descriptor


def _name(view: View, module: Module, descriptor: int) -> ClassName | None:
    """Behind the descriptor's two pointers, up to a zero."""
    start = descriptor + 2 * view.pointer_bytes
    data = b""
    while len(data) < _LONGEST and b"\0" not in data:
        more = view.space.try_read(start + len(data), _PIECE)
        if more is None:
            break
        data += more
    match = _DECORATED.match(data)
    if match is None:
        return None
    decorated = match[0][:-1].decode("ascii")
    return ClassName(undecorated(match[2].decode("ascii")), decorated, _LETTERS[match[1].decode("ascii")], module)
