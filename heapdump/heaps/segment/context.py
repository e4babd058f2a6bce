"""Contexts that the functions of this package share: one segment heap while it is described, or walked."""

from __future__ import annotations

from dataclasses import dataclass, field

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.heaps.allocator import DiscoveryContext
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.keys import Keys
from heapdump.heaps.workload import Workload
from heapdump.layouts import Layout, Struct
from heapdump.memory.mapped import MappedMemory
from heapdump.process.model import Process, View


@dataclass(frozen=True, slots=True)
class SegmentDiscovery:
    """One segment heap at address `heap` while it is described; `findings` and `notes` collect what is wrong with it."""

    shared: DiscoveryContext
    layout: Layout
    heap: int
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def process(self) -> Process:
        """The process of the heap."""
        return self.shared.process

    @property
    def view(self) -> View:
        """The view of the process that lists the heap."""
        return self.shared.view

    def report(self, damaged: DamagedBytes, message: str, *, note: str | None = None) -> None:
        """Adds a finding, and a note where something is missing because of it."""
        self.findings.append(damaged.finding(self.heap, message))
        if note is not None:
            self.notes.append(note)


@dataclass(frozen=True, slots=True)
class SegmentWalk:
    """One segment heap while it is walked: rows go to `columns`, findings and gaps to `log`.

    `keys`: shared by the walks of all segment heaps of the view. `workload`: the blocks of all segment heaps.
    """

    process: Process
    view: View
    heap: Heap
    layout: Layout
    keys: Keys
    columns: BlockColumns
    log: WalkLog
    workload: Workload

    @property
    def name(self) -> str:
        """The heap as messages name it."""
        return f"heap {self.heap.address:#x}"

    @property
    def granule(self) -> int:
        """Bytes of a granule: 8 on x86, 16 on x64."""
        return self.view.granularity

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""
        return self.view.pointer_bytes

    @property
    def mapped(self) -> MappedMemory:
        """The memory of the process as arrays."""
        return self.view.space.mapped

    def structs(self, name: str) -> list[Struct]:
        """The different versions of a structure in all layouts, that of the heap's own layout first."""
        versions: dict[tuple[object, ...], Struct] = {}
        for layout in (self.layout, *self.view.layouts):
            if name in layout and "_SEGMENT_HEAP" in layout:
                struct = layout[name]
                members = tuple(sorted((member, f.offset, f.type) for member, f in struct.fields.items()))
                versions.setdefault((struct.size, *members), struct)
        return list(versions.values())

    def report(self, damaged: DamagedBytes, message: str, *, gap: str | None = None) -> None:
        """Adds a finding, and a gap where blocks are missing or in doubt because of it."""
        self.log.add_finding(damaged.finding(self.heap.address, message))
        if gap is not None:
            self.log.add_gap(gap)

    def add_gap(self, text: str) -> None:
        """Adds a gap."""
        self.log.add_gap(text)

    def count_headers(self, headers: int, good_headers: int) -> None:
        """Counts headers that were read, and those of them that verified; the integrity of the heap is their quotient."""
        self.log.headers += headers
        self.log.good_headers += good_headers
