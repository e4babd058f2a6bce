"""The common language runtime (.NET, .NET Framework): read without its debugger library and without symbols.

discovery → globals · code_ranges, jit_code, ready_to_run → methods · structures, assemblies, metadata, names → names ·
gc_variables, gc_segments, managed_heap → objects · clr puts them together.
"""

from __future__ import annotations

from collections.abc import Sequence

from heapdump.process.model import Process
from heapdump.runtimes.dotnet.discovery import find_clrs
from heapdump.runtimes.runtime import Runtime


class _ClrFinder:
    """Finds CLRs; what reads them is loaded when there is one."""

    def find(self, process: Process) -> Sequence[Runtime]:
        """Every CLR of the process."""
        found = list(find_clrs(process))
        if not found:
            return ()
        from heapdump.runtimes.dotnet.clr import DotNet

        return [DotNet(process, clr) for clr in found]


RUNTIME = _ClrFinder()
