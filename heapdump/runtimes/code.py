"""The code and the objects of all runtimes of a process, as the namer and the stack walk ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heapdump.process.symbols.foreign_code import ForeignName, UnwindData
from heapdump.runtimes.runtime import Runtime


class RuntimeCode:
    """Fills `ForeignCode`. The runtimes are looked for when an address is first asked about."""

    def __init__(self, runtimes: Callable[[], Sequence[Runtime]]) -> None:
        """Asks nothing yet."""
        self._runtimes = runtimes

    def name(self, address: int) -> ForeignName | None:
        """The name of the first runtime that knows the address."""
        for runtime in self._runtimes():
            found = runtime.code_at(address)
            if found is not None:
                offset = address - found.start
                if found.kind == "stub" and found.method is None:
                    return ForeignName(None, None, offset, found.trust, f"stub of {runtime.info.kind}")
                symbol = f"{found.type}.{found.method}" if found.type and found.method else found.method
                module = found.assembly or found.type
                return ForeignName(module, symbol, offset, found.trust, found.note, found.signature)
        return None

    def unwind(self, address: int) -> tuple[int, UnwindData] | None:
        """The unwind data of the first runtime that has some."""
        found = (runtime.unwind_at(address) for runtime in self._runtimes())
        return next((one for one in found if one is not None), None)

    def holds(self, address: int) -> bool:
        """True where one of them has code."""
        return any(runtime.has_code(address) for runtime in self._runtimes())

    def data(self, address: int) -> str | None:
        """The object and its field that hold an address; an object with a finalizer is said to be one."""
        for heap in (runtime.heap for runtime in self._runtimes()):
            found = heap.object_at(address) if heap is not None else None
            if heap is not None and found is not None:
                field = heap.field_at(found, address) or f"+{address - found.address:#x}"
                last = " (finalizable)" if found.is_finalizable else ""
                return f"{found.type}{'' if field[0] in '[+' else '.'}{field} of {found.address:#x}{last}"
        return None
