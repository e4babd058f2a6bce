"""Splits the arguments of a kernel into their form and their values.

A kernel is compiled for one form. Machine code takes the values as words of 64 bits: an integer as it is, a named tuple
as its members, an array as (0, 0, number of elements, bytes of an element, address, lengths, strides), as numba defines
it.
"""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

_TOKEN = re.compile(r"[^(),]+|[(),]")
_TOP = 1 << 63


class UnknownFormError(Exception):
    """An argument is neither a 64-bit integer, an array of native integers, nor a named tuple of these."""


def split(arguments: tuple[object, ...]) -> tuple[str, list[int]]:
    """(form, values) of arguments. Example of a form: `i,i8:1C,heapdump.kernels.row:RowReader(i8:1C,u4:1C)`.

    `i`: an integer; `i8:1C`: an array: type of its elements, dimensions, memory layout, and `u` where it is not
    aligned.

    Raises:
        UnknownFormError: machine code takes no such argument.
    """
    values: list[int] = []
    return ",".join([_form(one, values) for one in arguments]), values


def _form(value: Any, values: list[int]) -> str:
    kind = type(value)
    if kind is int:
        return _integer(value, values)
    described = getattr(value, "__array_interface__", None)
    if described is not None and value.ndim:
        values += (0, 0, value.size, value.itemsize, described["data"][0], *value.shape, *value.strides)
        return _array_form(value.dtype, value.ndim, value.flags.num)
    if isinstance(value, tuple):
        inside = ",".join([_form(one, values) for one in value])
        return f"{kind.__module__}:{kind.__qualname__}({inside})"
    try:
        number = int(value) if described is not None and value.dtype.kind == "b" else operator.index(value)
    except TypeError:
        raise UnknownFormError(repr(kind)) from None
    return _integer(number, values)


def _integer(number: int, values: list[int]) -> str:
    if not -_TOP <= number < _TOP:
        raise UnknownFormError(repr(number))
    values.append(number)
    return "i"


@cache
def _array_form(kind: Any, dimensions: int, flags: int) -> str:
    """The form of an array. `flags`: C contiguous 1, Fortran contiguous 2, aligned 0x100, as numpy defines them."""
    if kind.kind not in "iub" or not kind.isnative:
        raise UnknownFormError(str(kind))
    layout = "C" if flags & 1 else "F" if flags & 2 else "A"
    return f"{kind.str[-2:]}:{dimensions}{layout}{'' if flags & 0x100 else 'u'}"


def parsed(
    form: str,
    integer: object,
    array: Callable[[str, int, str, bool], object],
    named: Callable[[type, list[Any]], object],
) -> list[Any]:
    """The type of each argument of a form, built by `integer`, `array(dtype, dimensions, layout, aligned)`, `named`."""
    tokens = iter(_TOKEN.findall(form))
    return list(_types(tokens, integer, array, named))


def _types(tokens: Iterator[str], integer: object, array: Any, named: Any) -> Iterator[Any]:
    for token in tokens:
        if token == ")":
            return
        if token == ",":
            continue
        if token == "i":
            yield integer
        elif re.fullmatch(r"\w\d:\d[CFA]u?", token):
            dtype, _, rest = token.partition(":")
            yield array(dtype, int(rest[0]), rest[1], not rest.endswith("u"))
        else:
            module, _, name = token.partition(":")
            next(tokens)  # the bracket
            yield named(getattr(importlib.import_module(module), name), list(_types(tokens, integer, array, named)))
