"""Hot loops, nothing else: arrays in, arrays out, no knowledge of dumps or processes.

Each is plain Python that reads well and runs as it is; `compiled` gives the same function translated by numba, which
is imported only when there is enough to do to pay for it (0.3 s from numba's cache, 2 s the first time).

Decision: signed 64-bit words throughout, because numba turns mixed signed and unsigned arithmetic into floats. Given
up: C code of our own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

WORTH_COMPILING = 200_000
"""Blocks, seen or expected, from which on the compiled loops are used."""


def compiled_if_worth(function: Callable[..., Any], blocks: int) -> Callable[..., Any] | None:
    """The compiled function once so many blocks were seen or are expected that it pays, or once another one has been compiled.

    None while it does not, and where numba is not installed.
    """
    if blocks < WORTH_COMPILING and not compiled.cache_info().currsize:
        return None
    return compiled(function)


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The function translated to machine code, releasing the GIL; None where numba is not installed."""
    try:
        import numba
    except ImportError:
        return None
    return _Compiled(numba.njit, function)


class _Compiled:
    """A translated function, from numba's cache on disk unless that proves unwritable or damaged."""

    def __init__(self, njit: Callable[..., Any], function: Callable[..., Any]) -> None:
        self._plain = njit(nogil=True)(function)
        self._call = self._plain
        with contextlib.suppress(RuntimeError):  # numba found no folder it may write its cache to
            self._call = njit(nogil=True, cache=True)(function)

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self._call(*arguments)
        except Exception:  # whatever reading a damaged cache ends in, before the function ran
            if self._call is self._plain:
                raise
            self._call = self._plain
            return self._plain(*arguments)


def run(function: Callable[..., Any], worth: int, *arguments: Any) -> Any:
    """Calls a kernel, compiled where that pays for `worth` items, else as it is.

    Plain Python reads and writes memoryviews twice as fast as arrays.
    """
    quick = compiled_if_worth(function, worth)
    if quick is not None:
        return quick(*arguments)
    return function(*map(_plain, arguments))


def _plain(value: Any) -> Any:
    """What plain Python reads an array through."""
    if not hasattr(value, "__array_interface__"):
        return value
    return memoryview(value) if value.flags.aligned else _Unaligned(value)


class _Unaligned:
    """Words that do not lie at multiples of their size, of which Python has no memoryview."""

    def __init__(self, words: Any) -> None:
        self._words = words

    def __getitem__(self, i: int) -> int:
        return int(self._words[i])
