"""HotSpot, the Java virtual machine, which describes its own structures by name (`gHotSpotVMStructs`).

vm_structs → offsets by name · spaces → the parts of the heap · object_heap → objects and types · code_cache → compiled
methods · native_memory → metaspace, card table · vm puts them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heapdump.process.model import Process
from heapdump.runtimes.runtime import Runtime

_MODULE = "jvm.dll"


class _HotSpotFinder:
    """Finds jvm.dll; what reads it is loaded when it is there."""

    def find(self, process: Process) -> Sequence[Runtime]:
        """Every HotSpot VM of the process whose description of itself is in the dump."""
        if not any(module.name.lower() == _MODULE for module in process.modules):
            return ()
        return list(self._vms(process))

    def _vms(self, process: Process) -> Iterator[Runtime]:
        from heapdump.runtimes.java.vm import JavaVm
        from heapdump.runtimes.java.vm_structs import read_vm_structs

        for module in process.modules:
            for view in process.views if module.name.lower() == _MODULE else ():
                structs = read_vm_structs(view, module)
                if structs is not None:
                    yield JavaVm(process, view, module, structs)


RUNTIME = _HotSpotFinder()
