"""Names vtables without type information by the exports of their module: the vtable's own symbol, or a function in it.

A DLL that exports a class exports its vtable, `??_7Foo@@6B@`, and its functions. Source: Microsoft Learn, *Decorated
names*.
"""

from __future__ import annotations

from heapdump.process.model import Module, Process, View
from heapdump.process.symbols.images import Image, open_image
from heapdump.process.symbols.pdb import undecorated
from heapdump.process.symbols.pdb_program import class_of
from heapdump.trust import Trust

_MOST_SLOTS = 8
"""The most functions of a vtable that are looked up; those of base classes come first."""

_VTABLE = "??_7"


class VtableNames:
    """Labels of the vtables of one view."""

    def __init__(self, process: Process, view: View) -> None:
        """Opens no image yet."""
        self._process, self._view = process, view
        self._images: dict[int, Image | None] = {}

    def label(self, vtable: int) -> tuple[str, Trust]:
        """(label, trust) of the vtable at an address.

        `class Foo (camera.dll)` by the vtable's own symbol, else `vtable camera.dll+0x1100`, with the first function in
        it that the module exports: `vtable camera.dll+0x1100 (Foo::Release)`.
        """
        place, module = f"vtable {self._process.where(vtable)}", self._process.module_map.at(vtable)
        if module is None:
            return place, Trust.GUESS
        own = self._export(module, vtable)
        name = class_of(own) if own.startswith(_VTABLE) else ""
        if name:
            return f"class {name} ({module.name})", Trust.DERIVED
        width = self._view.pointer_bytes
        slots = (self._view.space.try_pointer(vtable + width * slot) for slot in range(_MOST_SLOTS))
        functions = (self._export(module, slot) for slot in slots if slot is not None and slot in module.span)
        known = next(filter(None, functions), "")
        return (f"{place} ({undecorated(known)})" if known else place), Trust.GUESS

    def _export(self, module: Module, address: int) -> str:
        """The name that the module exports an address by; "" without one."""
        base = module.span.start
        if base not in self._images:
            self._images[base] = open_image(self._view.space, module, None)
        image = self._images[base]
        found = image.exports.at(address - base) if image is not None else None
        return found[0] if found is not None and found[1] == address - base else ""
