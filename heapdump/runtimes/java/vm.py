"""One HotSpot VM put together: heap, code cache, owners of memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from heapdump.process.model import Module, Process, View
from heapdump.process.symbols.foreign_code import UnwindData
from heapdump.runtimes.java.code_cache import CodeCache
from heapdump.runtimes.java.native_memory import native_memory
from heapdump.runtimes.java.object_heap import NARROW_POINTERS, JavaHeap
from heapdump.runtimes.java.spaces import HeapLayout, heap_layout
from heapdump.runtimes.java.vm_structs import VmStructs
from heapdump.runtimes.runtime import CodeCounts, CodePlace, MemoryOwner, OwnerKind, RuntimeInfo

_SWITCHES = ("UseCompactObjectHeaders", "UseCompressedClassPointers", NARROW_POINTERS)
_MOST_FLAGS = 1 << 13


class JavaVm:
    """One VM of the process. Everything is read when it is first asked for."""

    def __init__(self, process: Process, view: View, module: Module, structs: VmStructs) -> None:
        """Reads nothing yet."""
        self._process, self._view, self._module, self._structs = process, view, module, structs
        self._code = CodeCache(structs)

    @property
    def info(self) -> RuntimeInfo:
        """Kind, release, module, evidence."""
        release = self._structs.text(self._structs.static("Abstract_VM_Version", "_s_vm_release"))
        return RuntimeInfo("Java", release, self._module.name, ("module name", "gHotSpotVMStructs"))

    @cached_property
    def layout(self) -> HeapLayout | None:
        """Reservation and spaces of the heap; None where they are not in the dump."""
        return heap_layout(self._structs)

    @cached_property
    def heap(self) -> JavaHeap | None:
        """The heap; None where it is not in the dump."""
        if self.layout is None:
            return None
        return JavaHeap(self._structs, self._process.regions, self.layout, self._flags())

    def _flags(self) -> dict[str, bool]:
        """The switches that decide how objects look, as far as the VM has them."""
        structs = self._structs
        first, count = structs.static("JVMFlag", "flags"), structs.static("JVMFlag", "numFlags") or 0
        size, out = structs.sizes.get("JVMFlag", 0), {}
        for i in range(min(count, _MOST_FLAGS) if first and size else 0):
            flag = (first or 0) + i * size
            name = structs.text(structs.member(flag, "JVMFlag", "_name"))
            value = structs.space.try_integer(structs.member(flag, "JVMFlag", "_addr") or 0, 1)
            if name in _SWITCHES and value is not None:
                out[name] = value != 0
        return out

    def code_at(self, address: int, back: int = 0) -> CodePlace | None:
        """The compiled method or stub that holds `address - back`."""
        return self._code.place(address - back) if self.has_code(address - back) else None

    def unwind_at(self, address: int) -> tuple[int, UnwindData] | None:
        """None: compiled Java code has no unwind data."""
        return None

    def has_code(self, address: int) -> bool:
        """True in the code cache."""
        span = self._code.span()
        return span is not None and span.start <= address < span.end

    def owners(self) -> Sequence[MemoryOwner]:
        """Metaspace and card table, the reservation of the heap, its spaces, the code cache."""
        out = native_memory(self._structs, self._process.regions)
        span = self._code.span()
        if span is not None:
            out.append(MemoryOwner(span, OwnerKind.JIT_CODE, "Java code cache"))
        if self.layout is not None:
            out.append(MemoryOwner(self.layout.reserved, OwnerKind.HEAP, "Java heap"))
            out += [MemoryOwner(one.span, OwnerKind.HEAP, f"Java heap {one.generation}") for one in self.layout.spaces]
        return out

    def code(self) -> CodeCounts:
        """The committed bytes of the code cache; methods are not counted."""
        span = self._code.span()
        return CodeCounts(None, self._process.regions.committed_bytes(span) if span else 0, 0, 0)

    def trouble(self) -> Sequence[str]:
        """Nothing: the VM keeps no record that is read."""
        return ()

    def gaps(self) -> Sequence[str]:
        """What of the VM could not be read."""
        return () if self.layout is not None else (f"{self._module.name}: its heap is not in the dump",)
