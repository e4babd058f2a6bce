"""Registers of threads, each with its pointee."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.pointees import STYLES, pointee_record
from heapdump.render.view import Column, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.by_hand.pointees import Pointee, Pointees
    from heapdump.process.model import Process, Thread
    from heapdump.process.symbols.namer import Namer

RegisterRow = tuple[str, int, "Pointee | None"]


class ThreadRegisters:
    """Registers of the threads of a process, at the exception for the thread that raised it."""

    def __init__(self, process: Process, namer: Namer, pointees: Pointees) -> None:
        """`pointees` names the thing that a value points to."""
        self._process, self._namer, self._pointees = process, namer, pointees

    def rows(self, thread: Thread) -> list[RegisterRow]:
        """(name, value, pointee) of each register, in the order of the CONTEXT record; 64-bit registers first."""
        from heapdump.analyses.by_hand.place import FramePlace

        values = FramePlace(self._process, self._namer, f"~{thread.index}").registers
        return [(name, value, self._pointees.at(value)) for name, value in values.items()]

    def records(self, thread: Thread) -> list[Record]:
        """`registers` of a record of `threads`."""
        return [
            {"name": name, "value": hex(value), "points_to": pointee_record(found)}
            for name, value, found in self.rows(thread)
        ]

    def page(self, thread: Thread, locks: str = "") -> Iterator[PageItem]:
        """A heading and the table. `locks`: words on the locks of heaps that the thread holds or waits for."""
        heading = [(f"~{thread.index} tid {thread.id:#x} registers", "bold")]
        yield Lines([[*heading, *([(f"  {locks}", "red")] if locks else [])]])
        yield Table(COLUMNS, self.rows(thread), empty="no registers in the dump")


COLUMNS: tuple[Column[RegisterRow], ...] = (
    Column("Register", lambda r: r[0], "of the CONTEXT record; of the crashed thread that of the exception"),
    Column("Value", lambda r: f"{r[1]:#x}", "its value", right=True),
    Column(
        "PointsTo", lambda r: r[2].text if r[2] else "",
        "block, stack slot, module or region that the value leads to", flexible=30, wraps=True,
        style=lambda r: STYLES.get(r[2].kind, "") if r[2] else "",
    ),
)  # fmt: skip
