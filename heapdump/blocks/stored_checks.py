"""Checks of stored answers before they are used: types, ranges, lengths, encodings.

A file of the index may be forged with the right checksum, or written by a defect. Its numbers become indices into
arrays, and compiled kernels check no index. Each check costs at most one sweep over a column.

In every check `subject` names the values in the message of the error, as a plural: `rows`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 20
_LARGEST = 1 << 64


def require_indices(values: NDArray[Any], low: int, high: int, subject: str) -> None:
    """Makes sure that `values` are integers of one dimension in [low, high).

    Raises:
        ValueError: they are not.
    """
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"{subject} are no integers")
    if len(values) and not (low <= int(values.min()) and int(values.max()) < high):
        raise ValueError(f"{subject} are out of range")


def require_firsts(first: NDArray[Any], sources: int, targets: int, subject: str) -> None:
    """Makes sure that `first` cuts `targets` items into `sources` runs: run i is [first[i], first[i + 1]).

    So `first` has sources + 1 elements, begins with 0, never descends and ends with `targets`.

    Raises:
        ValueError: it does not.
    """
    require_indices(first, 0, targets + 1, subject)
    if len(first) != sources + 1 or int(first[0]) != 0 or int(first[-1]) != targets:
        raise ValueError(f"{subject} do not fit")
    require_ascending(first, subject)


def require_ascending(values: NDArray[Any], subject: str) -> None:
    """Makes sure that no value is smaller than the one before.

    Raises:
        ValueError: one is.
    """
    for low in range(0, len(values) - 1, _PIECE):
        piece = values[low : low + _PIECE + 1]
        if (piece[1:] < piece[:-1]).any():
            raise ValueError(f"{subject} do not ascend")


def require_length(values: NDArray[Any], length: int, kind: type[np.generic], subject: str) -> None:
    """Makes sure that a column has one dimension, `length` elements and the type `kind`.

    Raises:
        ValueError: it has not.
    """
    if values.shape != (length,) or values.dtype != np.dtype(kind):
        raise ValueError(f"{subject} have another form")


def require_types(value: object, counts: Mapping[str, int] | None = None) -> None:
    """Makes sure that dataclasses, also inside containers, hold values of the types that their fields declare.

    Numbers must be finite and have at most 64 bits, texts must be encodable. `counts`: name of a field → number of
    items that the field's integers are indices of.

    Raises:
        TypeError: a field holds a value of another type.
        ValueError: an index is out of range.
    """
    if is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        for field in fields(value):
            member = getattr(value, field.name)
            if field.name in hints and not _fits(member, hints[field.name]):
                raise TypeError(f"{field.name} is not subject it should be")
            if counts and field.name in counts and not _are_below(member, counts[field.name]):
                raise ValueError(f"{field.name} is out of range")
            require_types(member, counts)
    elif isinstance(value, Mapping):
        for key, member in value.items():
            require_types(key, counts)
            require_types(member, counts)
    elif isinstance(value, list | tuple):
        for member in value:
            require_types(member, counts)
    elif not _is_sound(value):
        raise ValueError("a number or a text is out of range")


def _is_sound(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, int):
        return -_LARGEST < value < _LARGEST
    return not isinstance(value, float) or math.isfinite(value)


def _are_below(value: object, count: int) -> bool:
    values: Iterable[object] = value if isinstance(value, list | tuple) else (value,)
    return all(one is None or (isinstance(one, int) and 0 <= one < count) for one in values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Field → its type. Types that are imported for annotations only are not known; members are checked anyway."""
    found: dict[str, Any] = {}
    for name, hint in kind.__annotations__.items():
        alone = type(kind.__name__, (), {"__annotations__": {name: hint}, "__module__": kind.__module__})
        with contextlib.suppress(NameError):
            found |= get_type_hints(alone)
    return found


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401  # types, unions, literals
    """True where a value is of the annotated type `hint`, and for annotations that no stored dataclass uses."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, tuple) and _fits_tuple(value, inner)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(key, inner[0]) and _fits(value[key], inner[1]) for key in value)
    if origin in (list, Sequence):
        return isinstance(value, list | tuple) and all(_fits(one, inner[0]) for one in value)
    return not isinstance(hint, type) or _is_a(value, hint)


def _fits_tuple(value: tuple[object, ...], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 2 and inner[1] is Ellipsis:
        return all(_fits(one, inner[0]) for one in value)
    return len(value) == len(inner) and all(_fits(one, kind) for one, kind in zip(value, inner, strict=True))


def _is_a(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float)
    if kind in (int, str):  # an enumeration has its own check: `StrEnum` is a `str`
        return isinstance(value, kind) and (kind is str or not isinstance(value, bool) or isinstance(value, Enum))
    return isinstance(value, kind)
