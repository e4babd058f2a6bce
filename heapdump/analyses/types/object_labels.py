"""Labels of types by number, and the labels of objects, by their vtables.

In: pointers that blocks begin with. Out: numbers of labels, `class ns::Foo (camera.dll)`, `vtable camera.dll+0x1100`,
`COM object camera.dll+0x1100`, `control block and ns::Foo (camera.dll)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.groups import dense
from heapdump.analyses.contents import recognise
from heapdump.analyses.types.block_starts import BlockData
from heapdump.analyses.types.com_objects import are_com_objects
from heapdump.analyses.types.content_kind import ContentKind
from heapdump.analyses.types.object_arrays import object_arrays
from heapdump.analyses.types.vtable_names import VtableNames
from heapdump.process.model import Process, View
from heapdump.process.symbols.control_blocks import control_block
from heapdump.process.symbols.rtti import ClassName, class_of_virtual_base, class_of_vtable, offset_of_virtual_base
from heapdump.process.symbols.vtables import are_vtables
from heapdump.trust import Trust


class ContentLabels:
    """Labels by number: kinds of content, formats, then classes and vtables as they are met, of all views together."""

    def __init__(self, vtables: Mapping[int, str]) -> None:
        """`vtables`: address → label of the class, where symbols name it."""
        self.vtables = vtables
        self.texts: list[str] = [*ContentKind, *recognise.WORDS]
        self.trusts = [*(kind.trust for kind in ContentKind), *map(recognise.trust_of, recognise.WORDS)]
        self.naming = Lock()
        """Held while labels are added."""
        self._numbers = {text: number for number, text in enumerate(self.texts)}

    def number(self, text: str, trust: Trust) -> int:
        """The number of a label, a new one for a new label. To be called while `naming` is held."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
            self.trusts.append(trust)
        return self._numbers[text]


class ObjectLabels:
    """Names the objects of one view; several threads may call it at once."""

    def __init__(self, process: Process, view: View, data: BlockData, labels: ContentLabels) -> None:
        """Knows no vtable yet."""
        self._process, self._view, self._data, self._labels = process, view, data, labels
        self._number_of_vtable: dict[int, int] = {}
        self._offset_of_virtual_base: dict[int, int] = {}
        self._names = VtableNames(process, view)
        self._bare: set[int] = set()

    def numbers(self, pointers: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The number of the class or of the vtable that the pointer at the start of each row leads to.

        MODULE_POINTER's where it leads to neither.
        """
        with self._labels.naming:
            return self._numbers(pointers, rows)

    def array_numbers(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """(places of the rows that are arrays of objects of a class, number of the label of each)."""
        address, size = self._data.addresses(rows), self._data.sizes(rows)
        places, vtables = object_arrays(self._process, self._view, address, size)
        class_of, values = dense(vtables)
        numbers = np.full(len(values), ContentKind.SMALL_NUMBER.number, np.uint64)
        with self._labels.naming:
            for i, vtable in enumerate(values):
                found = class_of_vtable(self._process, self._view, vtable)
                if found is not None:
                    label = f"{found.kind} {found.name}[] ({found.module.name})"
                    numbers[i] = self._labels.number(label, Trust.DERIVED)
        return places, numbers[class_of]

    def _numbers(self, pointers: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The number of the class or of the vtable that the pointer at the start of each row leads to.

        MODULE_POINTER's where it leads to neither.
        """
        places, values = dense(pointers)
        vtables = np.array(values, np.uint64)
        new = np.array([vtable for vtable in vtables.tolist() if vtable not in self._number_of_vtable], np.uint64)
        bare = are_vtables(self._process, self._view, new)
        for vtable, is_bare in zip(new.tolist(), bare.tolist(), strict=True):
            number = self._number_of_vtable[vtable] = self._number(vtable, is_bare=is_bare)
            is_unknown = number == ContentKind.MODULE_POINTER.number
            self._offset_of_virtual_base[vtable] = (
                offset_of_virtual_base(self._process, self._view, vtable) if is_unknown else 0
            )
        found: NDArray[np.uint64] = np.array([self._number_of_vtable[vtable] for vtable in values], np.uint64)[places]
        for place, table in enumerate(values):
            offset, is_bare = self._offset_of_virtual_base[table], table in self._bare
            of_table = np.flatnonzero(places == place) if offset or is_bare else places[:0]
            if offset:
                found[of_table] = self._virtual_base_numbers(rows[of_table], offset)
            elif is_bare:
                address, size = self._data.addresses(rows[of_table]), self._data.sizes(rows[of_table])
                of_table = of_table[are_com_objects(self._process, self._view, table, address, size)]
                if len(of_table):
                    label = f"COM object {self._process.where(table)}"
                    found[of_table] = self._labels.number(label, Trust.DERIVED)
        return found

    def _virtual_base_numbers(self, rows: NDArray[np.int64], offset: int) -> NDArray[np.uint64]:
        """The number of the class of each row, by the vtable of its first virtual base, or MODULE_POINTER's."""
        width = self._view.pointer_bytes
        at = np.where(self._data.sizes(rows) >= np.uint64(offset + width), self._data.addresses(rows), np.uint64(0))
        vtables, _ = self._view.space.mapped.gather(at + np.uint64(offset), width)
        places, values = dense(vtables)
        numbers = [self._class_number(class_of_virtual_base(self._process, self._view, one, offset)) for one in values]
        found: NDArray[np.uint64] = np.array(numbers, np.uint64)[places]
        return found

    def _class_number(self, found: ClassName | None) -> int:
        """The number of a class; MODULE_POINTER's without one."""
        if found is None:
            return ContentKind.MODULE_POINTER.number
        words = control_block(found.name) or f"{found.kind} {found.name}"
        return self._labels.number(f"{words} ({found.module.name})", Trust.DERIVED)

    def _number(self, vtable: int, *, is_bare: bool) -> int:
        """The number of a vtable's class; without type information (`is_bare`) that of the vtable; or of neither."""
        found = class_of_vtable(self._process, self._view, vtable)
        if found is not None:
            return self._class_number(found)
        if vtable in self._labels.vtables:
            return self._labels.number(self._labels.vtables[vtable], Trust.DERIVED)
        if is_bare:
            self._bare.add(vtable)
            return self._labels.number(*self._names.label(vtable))
        return ContentKind.MODULE_POINTER.number
