"""Machine code of a kernel, made by numba: the only file that imports it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from heapdump.kernels.forms import parsed


class MachineCode(NamedTuple):
    """`data`: an object file; `name`: the function in it; `arguments`: 64-bit words it takes; `results`: it returns.

    `triple`: the system that it is made for, in LLVM's words.
    """

    data: bytes
    name: str
    arguments: int
    results: int
    triple: str


class NotAlone(Exception):  # a state, no error
    """The machine code calls others, or returns what is no integer: it runs in numba alone."""


class Dispatcher:
    """The function as numba runs it, from numba's own cache on disk unless that proves unwritable or damaged."""

    def __init__(self, function: Callable[..., object], njit: Callable[..., Any] | None = None) -> None:
        """`njit`: numba's, which is loaded where it is not given."""
        translate: Any = njit or _numba().njit
        self._plain = translate(nogil=True)(function)
        self._call = self._plain
        with contextlib.suppress(RuntimeError):  # numba found no folder it may write its cache to
            self._call = translate(nogil=True, cache=True)(function)

    @property
    def is_kept(self) -> bool:
        """True where numba's cache has the function."""
        kept = getattr(getattr(self._call, "_cache", None), "_cache_file", None)
        return Path(getattr(kept, "_index_path", "")).is_file()

    def __call__(self, *arguments: object) -> object:
        """Calls it."""
        try:
            return self._call(*arguments)
        except Exception:  # whatever reading a damaged cache ends in, before the function ran
            if self._call is self._plain:
                raise
            self._call = self._plain
            return self._plain(*arguments)


def machine_code(function: Callable[..., object], form: str) -> MachineCode:
    """The function translated for a form of arguments (`forms`).

    Raises:
        NotAlone: it cannot be called without numba.
    """
    core = _numba().core
    compiler, types, cpu_target = core.compiler, core.types, core.registry.cpu_target
    flags = compiler.Flags()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True  # half of the time, and most of the code
    made = compiler.compile_extra(
        cpu_target.typing_context, cpu_target.target_context, function, tuple(numba_types(form)), None, flags, {}
    )
    library, described = made.library, made.fndesc
    result = described.restype
    if result == types.none:
        results = 0
    elif result == types.int64:
        results = 1
    elif isinstance(result, types.UniTuple) and result.dtype == types.int64:
        results = result.count
    else:
        raise NotAlone(str(result))
    calls = [one.name for one in library._final_module.functions if one.is_declaration]
    if any(not name.startswith("llvm.") for name in calls):
        raise NotAlone(", ".join(calls))
    shape = made.target_context.call_conv.get_function_type(result, described.argtypes)
    data = library._get_compiled_object()  # what numba keeps in its own files
    return MachineCode(data, described.llvm_func_name, len(shape.args) - 2, results, str(library._final_module.triple))


def numba_types(form: str) -> list[Any]:
    """Numba's types of the arguments of a form."""
    import numpy as np

    numba = _numba()
    types = numba.core.types
    return parsed(
        form,
        types.int64,
        lambda dtype, dimensions, layout, aligned: types.Array(
            numba.from_dtype(np.dtype(dtype)), dimensions, layout, aligned=aligned
        ),
        lambda kind, members: types.NamedTuple(members, kind),
    )


def _numba() -> Any:
    """The package, most of which has no types."""
    import numba

    return numba
