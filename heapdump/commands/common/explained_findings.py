"""Explained findings as JSON records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.blocks import BlockRecorder
from heapdump.commands.common.frames import frame_record, frames_of, place_name
from heapdump.render.view import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.damage.evidence import DamageEvidence
    from heapdump.analyses.damage.explained import ExplainedFinding
    from heapdump.blocks.table import Block
    from heapdump.commands.common.request import Request
    from heapdump.process.stacks.frames import StackFrame
    from heapdump.process.symbols.namer import Frame
    from heapdump.snapshot import Snapshot


_TOGETHER = 128
"""Findings whose blocks are read together."""


class FindingRecorder:
    """Makes records of explained findings; the stack of the exception is named once.

    Records that share a fingerprint are numbered in the order in which they are made: use one recorder for each list.
    """

    def __init__(self, request: Request, snapshot: Snapshot) -> None:
        """One for all findings of a dump."""
        self._request, self._snapshot = request, snapshot
        self._blocks = BlockRecorder(snapshot)
        self._seen: dict[str, int] = {}
        self._raised_by: list[StackFrame] | None = None

    def frames(self, explained: ExplainedFinding) -> list[Frame]:
        """The stack of the culprit, else of the damaged block, else the stack that ntdll recorded."""
        block = explained.culprit or explained.block or explained.candidate
        frames = frames_of(self._request, self._snapshot, block) if block is not None else []
        return frames or self.noted(explained)

    def place(self, address: int) -> str:
        """The function at an address, or the module and offset."""
        return place_name(self._request, self._snapshot, address)

    def allocated(self, block: Block) -> list[Frame]:
        """The recorded stack of a block."""
        return frames_of(self._request, self._snapshot, block)

    def noted(self, explained: ExplainedFinding) -> list[Frame]:
        """The stack that ntdll recorded in its failure record; () for other findings."""
        if explained.report is None or not explained.report.frames:
            return []
        namer = self._snapshot.namer(self._request.image_path, self._request.symbol_path)
        return [frame for address in explained.report.frames for frame in namer.frames(address)]

    def records(self, rows: Sequence[ExplainedFinding]) -> Iterator[Record]:
        """The JSON records of findings, one after the other; blocks are read for some of them together."""
        for first in range(0, len(rows), _TOGETHER):
            batch = [(one, one.evidence) for one in rows[first : first + _TOGETHER]]
            self._blocks.expect(block.row for pair in batch for block in _blocks(*pair) if block is not None)
            yield from (self._record(*pair) for pair in batch)

    def record(self, explained: ExplainedFinding) -> Record:
        """The JSON record (interface.md, check)."""
        return self._record(explained, explained.evidence)

    def _record(self, explained: ExplainedFinding, evidence: DamageEvidence) -> Record:
        finding, frames = explained.finding, self.frames(explained)
        heap = finding.heap or (self._snapshot.heaps[explained.block.heap].address if explained.block else 0)
        return {
            "id": self._id(explained, frames),
            "kind": finding.kind,
            "severity": finding.severity,
            "bug": explained.bug,
            "incident": explained.incident,
            "heap": hex(heap) if heap else None,
            "block": self._block(explained.block),
            "address": hex(finding.address),
            "length": finding.length,
            "message": finding.message,
            "expected": finding.expected or None,
            "found": finding.found or None,
            "culprit": self._block(explained.culprit),
            "frames": [frame_record(frame) for frame in frames],
            "access": self._access(explained),
            "evidence": self._evidence(explained, evidence),
        }

    @staticmethod
    def _access(explained: ExplainedFinding) -> Record | None:
        """The failed access of an exception; None for other findings."""
        access = explained.report.access if explained.report is not None else None
        if access is None:
            return None
        return {
            "kind": access.kind,
            "address": hex(access.address),
            "bytes": access.bytes,
            "thread": access.thread,
            "instruction": access.instruction or None,
        }

    def _id(self, explained: ExplainedFinding, frames: Sequence[Frame]) -> str:
        """The fingerprint, numbered where several findings share it."""
        from heapdump.analyses.damage.explained import fingerprint

        where = self._snapshot.process.where
        name = fingerprint(explained, [where(frame.address) if frame.module else "?" for frame in frames])
        self._seen[name] = self._seen.get(name, 0) + 1
        return name if self._seen[name] == 1 else f"{name}-{self._seen[name]}"

    def _block(self, block: Block | None) -> Record | None:
        return None if block is None else self._blocks(block)

    def _evidence(self, explained: ExplainedFinding, evidence: DamageEvidence) -> Record:
        report = explained.report
        return {
            "bug": explained.bug,
            "looks_like": evidence.meaning or None,
            "reaches": [hex(evidence.low), hex(evidence.high)],
            "memory": {"address": hex(evidence.start), "bytes": None if evidence.data is None else evidence.data.hex()},
            "candidates": [{"block": self._block(c.block), "reason": c.reason} for c in explained.candidates],
            "before": self._block(evidence.before),
            "after": self._block(evidence.after),
            "alike": explained.alike,
            "alike_stack": explained.alike_stack,
            "raised_by": [frame_record(found.frame) for found in self.raising(explained)],
            "registers": [
                {
                    "register": r.register,
                    "value": hex(r.value),
                    "relation": r.relation,
                    "state": r.block.state,
                    "block": hex(r.block.address),
                }
                for r in (report.registers if report else ())
            ],
        }

    def raising(self, explained: ExplainedFinding) -> Sequence[StackFrame]:
        """The stack that raised the exception; none for other findings."""
        if explained.finding.kind != "exception":
            return ()
        if self._raised_by is None:
            self._raised_by = self._snapshot.crashed_frames(self._request.image_path, self._request.symbol_path)
        return self._raised_by


def _blocks(explained: ExplainedFinding, evidence: DamageEvidence) -> Iterator[Block | None]:
    """The blocks that a record names."""
    yield from (explained.block, explained.culprit, evidence.before, evidence.after)
    yield from (candidate.block for candidate in explained.candidates)
