"""Kernels compiled before they are needed: all of them, or those that a command will call, while others are compiled.

`forms.json`, which a test writes, lists the kernels with the forms of arguments (`forms`) that commands call them with:
all, and the usual ones of 64-bit processes in the order in which commands call them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heapdump.kernels.compiler import MachineCode
    from heapdump.kernels.compiler_processes import CompilerProcesses, Job

_GRAPH = ("pointer_map", "pointer_sweep")
OF_REACH = (*_GRAPH, "reach", "block_starts", "grouping")
"""The modules of the kernels that tell which blocks can be reached, in the order of use."""

OF_TYPES = ("block_starts", "grouping")
"""Likewise of those that tell what blocks hold, by how they begin."""

OF_TREE = (
    *_GRAPH, "dominators", "source_places", "counted_members", "container_flags", "container_members",
    "container_nodes", "size_classes", "word_classes", "block_starts", "grouping",
)  # fmt: skip
"""Likewise of those that tell what each block retains, and its type."""

_FORESEEN: list[str] = []
_PROCESSES: dict[tuple[str, ...], CompilerProcesses] = {}
"""What was foreseen → the processes that were started for it."""

_STARTING = threading.Lock()


def compile_known(say: Callable[[str], None]) -> tuple[int, int]:
    """Compiles every kernel for the forms that commands call it with, on all processors; (already there, compiled now).

    Raises:
        ImportError: numba is not installed.
    """
    from heapdump.kernels.compiler_processes import CompilerProcesses, worthwhile_number

    jobs = [(name, form) for name, forms in known_forms().items() for form in forms]
    missing = [job for job in jobs if not _is_kept(*job)]
    processes = CompilerProcesses(missing, worthwhile_number(len(missing)) if _can_be_kept() else 0)
    while (job := processes.take()) is not None:
        say(f"compiling {job[0]}")
        compile_form(*job)
    processes.finish()
    if _can_be_kept():
        for job in missing:  # what processes left
            if not _is_kept(*job):
                compile_form(*job)
    return len(jobs) - len(missing), sum(_is_kept(*job) for job in missing)


def foresee(modules: Sequence[str]) -> None:
    """Says that the kernels of these modules will be needed: OF_REACH, OF_TYPES or OF_TREE."""
    _FORESEEN[:] = modules


def from_processes(function: Callable[..., object], form: str) -> MachineCode | None:
    """The machine code of a kernel where another process compiles it; None where the caller has to.

    The first call after `foresee` starts processes for what is missing of the kernels that it named.
    """
    from heapdump.kernels import code_files

    with _STARTING:
        processes = _processes()
    job = (f"{function.__module__.rpartition('.')[2]}.{function.__name__}", form)
    while (other := processes.claim(job)) is not None:
        with contextlib.suppress(Exception):  # whoever needs it finds the same error
            compile_form(*other)
    return code_files.read(function, form)


def _processes() -> CompilerProcesses:
    """The processes for what is foreseen; none where their work cannot be kept, or is not listed (in a zip file)."""
    from heapdump.kernels.compiler_processes import CompilerProcesses, worthwhile_number

    foreseen = tuple(_FORESEEN)
    if foreseen not in _PROCESSES:
        missing: list[Job] = []
        with contextlib.suppress(OSError):
            if foreseen and _can_be_kept():
                missing = [job for job in usual_jobs(foreseen) if not _is_kept(*job)]
        number = worthwhile_number(len(missing))
        _PROCESSES[foreseen] = CompilerProcesses(missing if number else (), number)
    return _PROCESSES[foreseen]


def compile_form(name: str, form: str) -> None:
    """Writes the machine code of the kernel `module.function` for a form to its file.

    Raises:
        ImportError: numba is not installed.
        NotAlone: it cannot be called without numba.
    """
    from heapdump.kernels import code_files
    from heapdump.kernels.compiler import machine_code

    code_files.write(_kernel(name), form, machine_code(_kernel(name), form))


def known_forms() -> dict[str, list[str]]:
    """`module.function` of each kernel → the forms of arguments that commands call it with."""
    found: dict[str, list[str]] = _lists()["all"]
    return found


def usual_jobs(modules: Sequence[str]) -> list[Job]:
    """The usual kernels of some modules with their forms, in the order of the modules."""
    jobs = [(name, form) for name, form in _lists()["usual"] if name.partition(".")[0] in modules]
    return sorted(jobs, key=lambda job: modules.index(job[0].partition(".")[0]))


def _lists() -> Any:
    return json.loads(Path(__file__).with_name("forms.json").read_text(encoding="ascii"))


def _kernel(name: str) -> Callable[..., object]:
    module, _, function = name.rpartition(".")
    found: Callable[..., object] = getattr(importlib.import_module(f"heapdump.kernels.{module}"), function)
    return found


def _can_be_kept() -> bool:
    from heapdump.kernels import code_files

    return code_files.can_be_written()


def _is_kept(name: str, form: str) -> bool:
    from heapdump.kernels import code_files

    return code_files.read(_kernel(name), form) is not None
