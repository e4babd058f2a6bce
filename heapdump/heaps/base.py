"""What a walker is: it claims addresses on evidence, and describes the heaps it owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from heapdump.blocks.records import Heap, Trust
from heapdump.layouts import Layout
from heapdump.process.model import Process, View

PAGE = 0x1000


@dataclass(frozen=True, slots=True)
class Claim:
    """A walker's word that its kind of heap lies at `address`, with the witnesses it saw there.

    `doubts` are witnesses that were looked for and missing; `layout` is the one that verified, None where none is used.
    """

    address: int
    witnesses: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    layout: Layout | None = None
    is_layout_exact: bool = False

    @property
    def trust(self) -> Trust:
        """EXACT when this build's own layout verified without doubts."""
        return Trust.EXACT if self.is_layout_exact and not self.doubts else Trust.DERIVED


class Walker(Protocol):
    """One heap kind."""

    def claims(self, view: View, address: int, *, is_listed: bool) -> Claim | None:
        """The claim on an address, or None. `is_listed`: the process names it as a heap, a witness of its own.

        Reads at most two pages.
        """

    def describe(self, process: Process, view: View, claim: Claim, index: int) -> Heap:
        """The heap behind a claim: header, extents, what Windows counted. Never raises for bad data."""


def role_of(view: View, address: int, heap_class: int | None) -> str:
    """`process` for the default heap, else by the class bits of its flags (`_HEAP.Flags` & 0xF000)."""
    if address == view.process_heap:
        return "process"
    return _CLASSES.get(heap_class, "private") if heap_class else "private"


_CLASSES = {
    0x1000: "private", 0x2000: "kernel", 0x3000: "gdi", 0x4000: "user", 0x5000: "console", 0x6000: "user desktop",
    0x7000: "csr shared", 0x8000: "csr port",
}  # fmt: skip
"""HEAP_CLASS_* of ntrtl.h."""
