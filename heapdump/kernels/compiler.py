"""Makes machine code of kernels with numba. Only this file and `pipeline` import numba."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from heapdump.kernels.forms import parsed


class MachineCode(NamedTuple):
    """One compiled function.

    Attributes:
        data: an object file.
        name: name of the function in it.
        arguments: number of 64-bit words that it takes.
        results: number of 64-bit words that it returns.
        triple: the target system (LLVM's target triple).
    """

    data: bytes
    name: str
    arguments: int
    results: int
    triple: str


class NotAlone(Exception):  # a state, no error
    """The machine code needs numba: it calls other functions, or returns something that is no integer."""


class Dispatcher:
    """A function that numba runs; from numba's cache on disk where that can be written and is not damaged."""

    def __init__(self, function: Callable[..., object], njit: Callable[..., Any] | None = None) -> None:
        """`njit`: numba's decorator; None imports numba for it."""
        translate: Any = njit or _numba().njit
        self._plain = translate(nogil=True, pipeline_class=_pipeline())(function)
        self._call = self._plain
        with contextlib.suppress(RuntimeError):  # numba found no folder it may write its cache to
            self._call = translate(nogil=True, cache=True, pipeline_class=_pipeline())(function)

    @property
    def is_kept(self) -> bool:
        """True where numba's cache has the function."""
        file = getattr(getattr(self._call, "_cache", None), "_cache_file", None)
        return Path(getattr(file, "_index_path", "")).is_file()

    def __call__(self, *arguments: object) -> object:
        """Calls the function."""
        try:
            return self._call(*arguments)
        except Exception:  # a damaged cache raises any exception, before the function runs
            if self._call is self._plain:
                raise
            self._call = self._plain
            return self._plain(*arguments)


def machine_code(function: Callable[..., object], form: str) -> MachineCode:
    """The function translated for a form of arguments (`forms`).

    Raises:
        NotAlone: it cannot be called without numba.
    """
    with _lock():
        return _machine_code(function, form)


def _machine_code(function: Callable[..., object], form: str) -> MachineCode:
    core = _numba().core
    compiler, types, target = core.compiler, core.types, core.registry.cpu_target
    flags = compiler.Flags()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True  # half of the time, and most of the code
    kinds = tuple(numba_types(form))
    made = compiler.compile_extra(
        target.typing_context, target.target_context, function, kinds, None, flags, {}, pipeline_class=_pipeline()
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


def warm_up() -> None:
    """Loads what compiling needs, a third of a second, before the first function is known."""
    target = _numba().core.registry.cpu_target
    with _lock():
        target.typing_context.refresh()
        target.target_context.refresh()


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


def _lock() -> Any:
    """The lock of numba, which takes it in each step; what it does between them is not for several threads either."""
    from numba.core.compiler_lock import global_compiler_lock

    return global_compiler_lock


def _pipeline() -> Any:
    """`KernelPipeline`; numba's own where a version of numba has other steps, which takes longer."""
    try:
        from heapdump.kernels.pipeline import KernelPipeline
    except (ImportError, AttributeError):
        return _numba().core.compiler.Compiler
    return KernelPipeline


def _numba() -> Any:
    """The package, most of which has no types."""
    import numba

    return numba
