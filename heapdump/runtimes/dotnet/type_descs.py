"""Types that have no MethodTable of their own: arrays (up to 3.1), pointers and references, as arguments or elements.

A type handle with bit 1 set leads to a TypeDesc: u32 whose low byte is the element type of ECMA-335 II.23.1.16. For
arrays, pointers and references the type that is modified follows: from 8 on behind the exposed object, from 5 to 7
in the word behind, up to 3.1 behind the MethodTable that the arrays share. Up to 2.2 both are relative to their
place, and with bit 0 set a pointer to the handle. Source: typedesc.h of the runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.runtimes.dotnet.structures import Structures

_POINTER, _REFERENCE, _ARRAY, _VECTOR = 0x0F, 0x10, 0x14, 0x1D
_MODIFIED = (_POINTER, _REFERENCE, _ARRAY, _VECTOR)
_LAST_ELEMENT = 0x45


@dataclass(frozen=True, slots=True)
class TypeDesc:
    """A modified type. `element`: the handle of the type behind `suffix`, `[]`, `[,]`, `*` or `&`."""

    element: int
    suffix: str


def is_type_desc(structures: Structures, handle: int) -> bool:
    """True where a handle leads to a TypeDesc: its element type is one."""
    kind = structures.space.try_integer(handle & ~3, 1) if handle & 2 and handle > 0xFFFF else None
    return kind is not None and 0 < kind <= _LAST_ELEMENT


def type_desc(structures: Structures, handle: int) -> TypeDesc | None:
    """The modified type behind a handle; None for type variables, function pointers and what is no TypeDesc."""
    space, p, at = structures.space, structures.pointer, handle & ~3
    kind = space.try_integer(at, 1) if is_type_desc(structures, handle) else None
    if kind not in _MODIFIED:
        return None
    element = next((one for place in (at + 2 * p, at + p) for one in _pointed(structures, place)), None)
    if element is None:
        return None
    if kind == _ARRAY:
        table = next((found for one in _pointed(structures, at + p) if (found := structures.method_table(one))), None)
        return TypeDesc(element, f"[{',' * (max(1, table.rank(p)) - 1)}]") if table is not None else None
    return TypeDesc(element, {_POINTER: "*", _REFERENCE: "&", _VECTOR: "[]"}[kind])


def _pointed(structures: Structures, place: int) -> Iterator[int]:
    """The handles that a word may mean: itself, relative to its place, or behind a pointer to it."""
    value = structures.space.try_pointer(place)
    for one in (value, structures.relative(place, value)) if value else ():
        behind = structures.space.try_pointer(one & ~1) or 0 if one & 1 else one
        if structures.method_table(behind) is not None or is_type_desc(structures, behind):
            yield behind
