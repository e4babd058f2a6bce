"""Hot loops: arrays in, arrays out, no knowledge of dumps or processes.

Each kernel is plain Python and runs as it is. `compiled` gives the same function translated by numba, which is used
only where the work is worth it: the machine code is loaded from files in 0.03 s; compiling it the first time takes 0.7
s and more. The number of blocks alone decides which of the two runs; tests hold their results equal. `forms` says how
arguments reach machine code, `compiler` makes it in the steps of `pipeline`, `code_files` keeps and loads it. `ahead`
compiles kernels before they are needed, in `compiler_processes`.

- `row` defines a row of the block table.
- Kernels that write rows: `nt_chain`, `nt_damage`, `vs_chain`, `lfh_blocks`.
- Kernels that read rows: `nt_entry_checks`, `nt_stack_records`, `block_counts`, `block_starts`, `grouping`.
- Kernels of the pointer graph: `pointer_map`, `pointer_sweep`, `reach`, `dominators`, `owners`, `word_classes`,
  `container_flags`, `container_members`, `source_places`, `size_classes`, `b_trees`.
- Kernels of the heaps of runtimes: `managed_objects` (.NET), `java_objects`; `hash_table` finds types in their tables.

Decision: docs/decisions/0005-loops-in-python-compiled-by-numba.md.
"""

from __future__ import annotations

import importlib.util
import inspect
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from heapdump.kernels.forms import UnknownFormError, split

if TYPE_CHECKING:
    from heapdump.kernels.code_files import Run
    from heapdump.kernels.compiler import Dispatcher

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

WORTH_COMPILING = 200_000
"""Number of blocks, counted or expected, from which on the compiled loops are used."""

NUMBA_BYTES = 512 << 20
"""Memory that a process must be able to get before numba is loaded: LLVM ends a process that gets none."""

COMPILING = "compiling the loops for large dumps, once in an installation; heapdump cache --compile does it ahead"
"""The line about it."""


def run(
    function: Callable[Arguments, Result], blocks: int, *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Calls a kernel: compiled where `blocks` is WORTH_COMPILING or more, else in plain Python.

    `blocks`: blocks of this call and of the following calls of the same task together. Plain Python gets memoryviews,
    which it reads and writes twice as fast as numpy arrays.
    """
    quick = compiled_if_worth(function, blocks)
    if quick is not None:
        return quick(*arguments, **named)
    return function(*map(_plain, arguments), **named)  # type: ignore[arg-type]


def compiled_if_worth(function: Callable[Arguments, Result], blocks: int) -> Callable[Arguments, Result] | None:
    """The compiled function where `blocks` is WORTH_COMPILING or more; None otherwise, or without numba."""
    return compiled(function) if blocks >= WORTH_COMPILING else None


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result] | None:
    """The function translated to machine code, releasing the GIL; None where numba is not installed."""
    with _FINDING:
        return cast("Callable[Arguments, Result] | None", _compiled(function))


_FINDING = threading.Lock()
"""So that two threads get one `_Compiled` of a function, which compiles it once."""


@cache
def _compiled(function: Callable[..., object]) -> Callable[..., object] | None:
    return _Compiled(function) if importlib.util.find_spec("numba") else None


_LISTENERS: list[Callable[[str], None]] = []


def announce_compiling(say: Callable[[str], None]) -> None:
    """From now on `say` gets a line when functions are compiled, which happens once in an installation.

    Until `forget_announcing`, other processes may help with it: see `ahead`.
    """
    _LISTENERS[:] = [say]


def forget_announcing() -> None:
    """Ends what `announce_compiling` began."""
    _LISTENERS.clear()


class _Compiled:
    """A function as machine code, for each form of arguments from a file; else compiled by numba, and kept in one."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._codes: dict[str, Run | None] = {}
        self._making = threading.Lock()
        self._numba: Dispatcher | None = None

    def __call__(self, *arguments: object, **named: object) -> object:
        if named:
            arguments = inspect.signature(self._function).bind(*arguments, **named).args
        try:
            form, values = split(arguments)
        except UnknownFormError:
            return self._by_numba(*arguments)
        if form not in self._codes:
            with self._making:
                if form not in self._codes:
                    self._codes[form] = self.code(form)
        code = self._codes[form]
        return self._by_numba(*arguments) if code is None else code(values)

    def code(self, form: str) -> Run | None:
        """The machine code for a form, compiled where it is not kept; None where it runs in numba alone."""
        from heapdump.kernels import ahead, code_files
        from heapdump.kernels.compiler import NotAlone, machine_code

        if not code_files.is_possible():
            return None
        try:
            found = code_files.read(self._function, form)
            if found is None:
                if not code_files.has_room(NUMBA_BYTES):
                    return None
                self._announce()
                if _LISTENERS:  # a library starts no processes
                    found = ahead.from_processes(self._function, form)
                if found is None:
                    found = machine_code(self._function, form)
                    code_files.write(self._function, form, found)
            return code_files.loaded(found)
        except (NotAlone, ImportError, OSError, RuntimeError):
            return None

    def _by_numba(self, *arguments: object) -> object:
        """Calls it in numba; in plain Python where there is no room for numba, which ends the process without it."""
        if self._numba is None:
            from heapdump.kernels.code_files import has_room
            from heapdump.kernels.compiler import Dispatcher

            if not has_room(NUMBA_BYTES):
                return self._function(*map(_plain, arguments))
            self._numba = Dispatcher(self._function)
            if not self._numba.is_kept:
                self._announce()
        return self._numba(*arguments)

    def _announce(self) -> None:
        for say in _LISTENERS:
            say(COMPILING)


def _plain(value: object) -> object:
    """The argument with arrays as memoryviews, also those in a named tuple; other arguments as they are."""
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(map(_plain, value))
    if not hasattr(value, "__array_interface__"):
        return value
    array = cast(Any, value)
    return memoryview(array) if array.flags.aligned else _Unaligned(array)


class _Unaligned:
    """Words that do not lie at multiples of their size; Python makes no memoryview of those."""

    def __init__(self, words: Any) -> None:
        self._words = words

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, i: int) -> int:
        return int(self._words[i])
