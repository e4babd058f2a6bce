"""Code that no module of the list holds, or that a runtime knows better: jitted and precompiled methods.

The room `runtimes` fills these protocols; the namer and the stack walk ask them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from heapdump.trust import Trust


class UnwindData(Protocol):
    """Unwind data of x64 code by RVA: RUNTIME_FUNCTION rows, and the bytes of UNWIND_INFO."""

    def function_at(self, rva: int) -> tuple[int, int, int] | None:
        """(begin, end, unwind information) of the function that holds an RVA, as RVAs."""

    def read(self, rva: int, size: int) -> bytes | None:
        """Bytes at an RVA; None where the dump does not hold all of them."""


@dataclass(frozen=True, slots=True)
class ForeignName:
    """The name of code. `module`: assembly; `symbol`: None where the method has no name; `offset` from its start.

    `signature`: the types of its parameters in parentheses, None where they are not known.
    """

    module: str | None
    symbol: str | None
    offset: int
    trust: Trust
    note: str = ""
    signature: str | None = None


class ForeignCode(Protocol):
    """The code of the runtimes of a process."""

    def name(self, address: int) -> ForeignName | None:
        """The method or stub that holds an address; None outside of their code."""

    def unwind(self, address: int) -> tuple[int, UnwindData] | None:
        """(base of RVAs, unwind data) of x64 code in no module."""

    def holds(self, address: int) -> bool:
        """True in jitted or precompiled code."""

    def data(self, address: int) -> str | None:
        """`Namespace.Type._field` for an address in a managed object; None outside of managed heaps."""


class NoForeignCode:
    """A process without runtimes."""

    def name(self, address: int) -> ForeignName | None:
        """None."""
        return None

    def unwind(self, address: int) -> tuple[int, UnwindData] | None:
        """None."""
        return None

    def holds(self, address: int) -> bool:
        """False."""
        return False

    def data(self, address: int) -> str | None:
        """None."""
        return None
