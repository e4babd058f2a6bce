"""Checks of stored answers before they are used: types, ranges, lengths, encodings.

A file of the index may be forged with the right checksum, or written by a defect. Its numbers become indices into
arrays, and compiled kernels check no index. Each check costs at most one sweep over a column.

In every check `subject` names the values in the message of the error, as a plural: `rows`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

Check = Callable[[object], bool]
"""True for values that may be used."""

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


def require_texts(values: object, subject: str) -> None:
    """Makes sure that `values` is a list of texts.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{subject} are no texts")


def require_types(value: object, counts: Mapping[str, int] | None = None) -> None:
    """Makes sure that dataclasses, also inside containers, hold values of the types that their fields declare.

    Numbers must be finite and have at most 64 bits, texts must be encodable. `counts`: name of a field → number of
    items that the field's integers are indices of.

    Raises:
        TypeError: a field holds a value of another type.
        ValueError: an index is out of range.
    """
    if isinstance(value, str | int | float):
        if not _is_sound(value):
            raise ValueError("a number or a text is out of range")
    elif is_dataclass(value) and not isinstance(value, type):
        _require_fields(value, counts)
    elif isinstance(value, Mapping):
        for key, member in value.items():
            require_types(key, counts)
            require_types(member, counts)
    elif isinstance(value, list | tuple):
        for member in value:
            require_types(member, counts)


def _require_fields(value: object, counts: Mapping[str, int] | None) -> None:
    """`require_types` for the fields of a dataclass."""
    kind: type = type(value)
    for name, fits in _checks(kind).items():
        member = getattr(value, name)
        if not fits(member):
            raise TypeError(f"{name} is of another type")
        if counts and name in counts and not _are_below(member, counts[name]):
            raise ValueError(f"{name} is out of range")
        require_types(member, counts)


def _is_sound(value: str | float) -> bool:
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


@cache
def _checks(kind: type) -> dict[str, Check]:
    """Field of a dataclass → the check of its values."""
    hints = _hints(kind)
    return {field.name: _check(hints[field.name]) if field.name in hints else _any for field in fields(kind)}


def _any(_: object) -> bool:
    return True


def _check(hint: Any) -> Check:  # noqa: ANN401  # types, unions, literals
    """A check that is true for values of the annotated type, and for annotations that no stored dataclass uses."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return lambda value: value in inner
    if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        return _tuple_check([_check(one) for one in inner])
    if origin in (Union, UnionType, tuple, dict, Mapping, list, Sequence):
        return _container_check(origin, [_check(one) for one in inner if one is not Ellipsis])
    return partial(_is_a, kind=hint) if isinstance(hint, type) else _any


def _tuple_check(checks: Sequence[Check]) -> Check:
    """The check of a tuple with one value for each of these."""

    def fits(value: object) -> bool:
        """True for a tuple of that length whose values all pass."""
        if not isinstance(value, tuple) or len(value) != len(checks):
            return False
        return all(check(one) for one, check in zip(value, checks, strict=True))

    return fits


def _container_check(origin: object, checks: Sequence[Check]) -> Check:
    """The check of a union, a dictionary, a list or a tuple of any length. `checks`: those of what it holds."""
    first, last = checks[0], checks[-1]
    if origin in (Union, UnionType):
        return lambda value: any(check(value) for check in checks)
    if origin in (dict, Mapping):
        return lambda value: isinstance(value, dict) and all(first(key) and last(one) for key, one in value.items())
    kinds: tuple[type[Any], ...] = (tuple,) if origin is tuple else (list, tuple)
    return lambda value: isinstance(value, kinds) and all(first(one) for one in value)


def _is_a(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float)
    if kind in (int, str):  # an enumeration has its own check: `StrEnum` is a `str`
        return isinstance(value, kind) and (kind is str or not isinstance(value, bool) or isinstance(value, Enum))
    return isinstance(value, kind)
