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
from heapdump.memory import limits
from heapdump.memory.mapped import MappedMemory
from heapdump.process.model import Process, View


@dataclass(frozen=True, slots=True)
class SegmentDiscovery:
    """One segment heap that is being described.

    Attributes:
        shared: the process, the view, and the list nodes in use.
        layout: the struct layout that verified.
        heap: address of the heap.
        findings: gets the damage.
        notes: gets sentences that say what is missing, and why.
    """

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
        """The view that the heap lies in."""
        return self.shared.view

    def structs(self, name: str) -> list[Struct]:
        """The distinct versions of a structure in all layouts; the version of the heap's own layout comes first."""
        return _versions(self.view, self.layout, name)

    def report(self, damaged: DamagedBytes, message: str, *, note: str | None = None) -> None:
        """Adds a finding, and a note that says what is missing because of it; `note` is None where nothing is."""
        self.findings.append(damaged.finding(self.heap, message))
        if note is not None:
            self.notes.append(note)


@dataclass(frozen=True, slots=True)
class SegmentWalk:
    """One segment heap that is being walked.

    Attributes:
        process: the process.
        view: the view that the heap lies in.
        heap: its record.
        layout: the struct layout that verified.
        keys: keys and rules, shared by the walks of all segment heaps of the view.
        columns: gets the rows.
        log: gets findings, gaps and counts of headers.
        workload: estimate of the blocks of all segment heaps.
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
        """The beginning of messages about the heap: `heap 0x…`."""
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
        """The memory of the process, for many words at once."""
        return self.view.space.mapped

    def structs(self, name: str) -> list[Struct]:
        """The distinct versions of a structure in all layouts; the version of the heap's own layout comes first."""
        return _versions(self.view, self.layout, name)

    def report(self, damaged: DamagedBytes, message: str, *, gap: str | None = None) -> None:
        """Adds a finding, and a gap that says which blocks are missing or in doubt; `gap` is None where none are."""
        self.log.add_damage(damaged.finding(self.heap.address, message), gap)

    @property
    def most_reports(self) -> int:
        """As many findings as the log keeps, and one more by which it knows that some are left out."""
        return limits.MAX_FINDINGS + 1

    def add_gap(self, text: str) -> None:
        """Adds a gap."""
        self.log.add_gap(text)

    def count_headers(self, headers: int, good_headers: int) -> None:
        """Adds to the numbers of headers and of good headers; integrity is good_headers / headers."""
        self.log.headers += headers
        self.log.good_headers += good_headers


def _versions(view: View, own: Layout, name: str) -> list[Struct]:
    """The distinct versions of a structure in the layout `own`, and in the others that have segment heaps."""
    versions: dict[tuple[object, ...], Struct] = {}
    for layout in (own, *view.layouts):
        if name in layout and "_SEGMENT_HEAP" in layout:
            struct = layout[name]
            members = tuple(sorted((member, f.offset, f.type) for member, f in struct.fields.items()))
            versions.setdefault((struct.size, *members), struct)
    return list(versions.values())
