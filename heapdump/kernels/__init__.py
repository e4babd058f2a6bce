"""Hot loops, nothing else: arrays in, arrays out, no knowledge of dumps or processes.

Each is plain Python that reads well and runs as it is; `compiled` gives the same function translated by numba, which
is imported only when there is enough to do to pay for it (0.3 s from numba's cache, 2 s the first time). Which of the
two runs depends on the number of blocks alone, and never changes an answer: tests hold both equal.

`row` defines what a row of the block table is. Kernels of formats write rows: `nt_chain`, `vs_chain`, `lfh_blocks`; or
read them: `nt_entry_checks`, `nt_stack_records`, `block_counts`, `grouping`. Kernels of the pointer graph: `pointer_map`,
`pointer_sweep`, `reach`, `dominators`, `word_classes`.

Decision: docs/decisions/0005-loops-in-python-compiled-by-numba.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

WORTH_COMPILING = 200_000
"""Blocks, met or expected, from which on the compiled loops are used."""


def run(
    function: Callable[Arguments, Result], blocks: int, *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Calls a kernel for `blocks` blocks: compiled where they are WORTH_COMPILING or more, else in plain Python.

    `blocks` counts this call and those that follow it for the same purpose. Plain Python gets memoryviews, which it
    reads and writes twice as fast as arrays.
    """
    quick = compiled_if_worth(function, blocks)
    if quick is not None:
        return quick(*arguments, **named)
    return function(*map(_plain, arguments), **named)  # type: ignore[arg-type]


def compiled_if_worth(function: Callable[Arguments, Result], blocks: int) -> Callable[Arguments, Result] | None:
    """The compiled function where `blocks` is WORTH_COMPILING or more; else None, and where numba is not installed."""
    return compiled(function) if blocks >= WORTH_COMPILING else None


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result] | None:
    """The function translated to machine code, releasing the GIL; None where numba is not installed."""
    return cast("Callable[Arguments, Result] | None", _compiled(function))


@cache
def _compiled(function: Callable[..., object]) -> Callable[..., object] | None:
    try:
        import numba
    except ImportError:
        return None
    return _Compiled(numba.njit, function)


class _Compiled:
    """A translated function, from numba's cache on disk unless that proves unwritable or damaged."""

    def __init__(self, njit: Callable[..., Any], function: Callable[..., object]) -> None:
        self._plain = njit(nogil=True)(function)
        self._call = self._plain
        with contextlib.suppress(RuntimeError):  # numba found no folder it may write its cache to
            self._call = njit(nogil=True, cache=True)(function)

    def __call__(self, *arguments: object, **named: object) -> object:
        try:
            return self._call(*arguments, **named)
        except Exception:  # whatever reading a damaged cache ends in, before the function ran
            if self._call is self._plain:
                raise
            self._call = self._plain
            return self._plain(*arguments, **named)


def _plain(value: object) -> object:
    """The argument as plain Python reads it fastest: arrays as memoryviews, also those in a named tuple."""
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(map(_plain, value))
    if not hasattr(value, "__array_interface__"):
        return value
    array = cast(Any, value)
    return memoryview(array) if array.flags.aligned else _Unaligned(array)


class _Unaligned:
    """Words that do not lie at multiples of their size, of which Python has no memoryview."""

    def __init__(self, words: Any) -> None:
        self._words = words

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, i: int) -> int:
        return int(self._words[i])
