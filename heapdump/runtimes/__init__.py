"""Room 4b: runtimes that live in the process and keep memory of their own, one package for each kind.

In comes the process, out come names of code that belongs to no module, unwind data for it, owners of memory, and the
objects of managed heaps. A package imports no other one. A new kind is a package with a `RUNTIME` (see
`runtime.RuntimeFinder`) and a line in `RUNTIMES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from heapdump.process.model import Process
from heapdump.runtimes.runtime import Runtime, RuntimeFinder

RUNTIMES: dict[str, str] = {
    "dotnet": "heapdump.runtimes.dotnet",
    "java": "heapdump.runtimes.java",
}
"""Kind → package, in the order in which they are asked for an address."""


def find_runtimes(process: Process) -> tuple[Runtime, ...]:
    """Every runtime of the process, in the order of `RUNTIMES`."""
    finders = (cast("RuntimeFinder", import_module(name).RUNTIME) for name in RUNTIMES.values())
    return tuple(runtime for finder in finders for runtime in finder.find(process))
