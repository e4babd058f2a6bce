"""Explained findings as JSON records, and as the plain data of reports in the manner of AddressSanitizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.blocks import BlockRecorder
from heapdump.commands.common.frames import frame_record, frames_of, stack_number
from heapdump.render.view import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.analyses.damage.explained import ExplainedFinding
    from heapdump.blocks.table import Block
    from heapdump.commands.common.request import Request
    from heapdump.process.stacks.frames import StackFrame
    from heapdump.process.symbols.namer import Frame
    from heapdump.render import asan
    from heapdump.snapshot import Snapshot


class FindingRecorder:
    """Makes records and reports of explained findings; the stack of the exception is named once.

    Records that share a fingerprint are numbered in the order in which they are made: use one recorder for each list.
    """

    def __init__(self, request: Request, snapshot: Snapshot) -> None:
        """One for all findings of a dump."""
        self._request, self._snapshot = request, snapshot
        self._blocks = BlockRecorder(snapshot)
        self._seen: dict[str, int] = {}
        self._raised_by: list[StackFrame] | None = None

    def frames(self, explained: ExplainedFinding) -> list[Frame]:
        """The stack of the first candidate, else of the damaged block, else the stack that ntdll recorded."""
        block = explained.candidate or explained.block
        frames = frames_of(self._request, self._snapshot, block) if block is not None else []
        if not frames and explained.report is not None and explained.report.frames:
            namer = self._snapshot.namer(self._request.image_path, self._request.symbol_path)
            return [frame for address in explained.report.frames for frame in namer.frames(address)]
        return frames

    def record(self, explained: ExplainedFinding) -> Record:
        """The JSON record (interface.md, check)."""
        finding, frames = explained.finding, self.frames(explained)
        heap = finding.heap or (self._snapshot.heaps[explained.block.heap].address if explained.block else 0)
        return {
            "id": self._id(explained, frames),
            "kind": finding.kind,
            "severity": finding.severity,
            "heap": hex(heap) if heap else None,
            "block": self._block(explained.block),
            "address": hex(finding.address),
            "length": finding.length,
            "message": finding.message,
            "expected": finding.expected or None,
            "found": finding.found or None,
            "culprit": self._block(explained.candidate),
            "frames": [frame_record(frame) for frame in frames],
            "evidence": self._evidence(explained),
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

    def _evidence(self, explained: ExplainedFinding) -> Record:
        evidence, report = explained.evidence, explained.report
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
            "raised_by": [frame_record(found.frame) for found in self._raising(explained)],
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

    def _raising(self, explained: ExplainedFinding) -> Sequence[StackFrame]:
        """The stack that raised the exception; none for other findings."""
        if explained.finding.kind != "exception":
            return ()
        if self._raised_by is None:
            self._raised_by = self._snapshot.crashed_frames(self._request.image_path, self._request.symbol_path)
        return self._raised_by

    def report(self, explained: ExplainedFinding) -> asan.Report:
        """The plain data of the report."""
        from heapdump.render.asan import Report

        finding, evidence = explained.finding, explained.evidence
        candidates = () if explained.report is not None else explained.candidates
        return Report(
            pid=self._snapshot.process.pid,
            name=explained.bug or finding.kind,
            severity=finding.severity,
            address=finding.address,
            length=finding.length,
            message=finding.message,
            expected=finding.expected,
            found=finding.found,
            meaning=evidence.meaning,
            reach=(evidence.low, evidence.high),
            raised_by=[(str(found.frame), found.how) for found in self._raising(explained)],
            region=self._region(explained),
            candidates=[_candidate_words(candidate.block, candidate.reason) for candidate in candidates],
            alike=explained.alike,
            alike_stack=explained.alike_stack,
            memory=None if finding.is_report else self._memory(explained),
            place=self._place(explained),
        )

    def _region(self, explained: ExplainedFinding) -> asan.MemoryRegion | None:
        from heapdump.render.asan import MemoryRegion

        block = explained.candidate or explained.block
        if block is None:
            return None
        has_stack = stack_number(self._snapshot, block)
        verb = "freed by:" if block.state == "free" else "allocated by:"
        stack = verb if has_stack else "ntdll noted this stack:"
        words, frames = f"{block.state} {block.kind.word}", [str(frame) for frame in self.frames(explained)]
        return MemoryRegion(block.address, block.size, block.entry, block.end, words, stack, frames)

    def _memory(self, explained: ExplainedFinding) -> asan.MemoryView:
        from heapdump.analyses.damage.memory_rows import LEGEND, memory_rows
        from heapdump.render.asan import MemoryView

        finding, evidence = explained.finding, explained.evidence
        rows = memory_rows(self._snapshot.walk.table, finding.address, finding.length)
        cells = [(row.address, row.cells, row.is_hit) for row in rows]
        return MemoryView(evidence.start, evidence.data, cells, LEGEND)

    def _place(self, explained: ExplainedFinding) -> str:
        """The first frame that does not only pass the request on; the address where there is none."""
        from heapdump.analyses.allocated.leaks import passes_on

        folds = passes_on(())
        frames = (*(found.frame for found in self._raising(explained)), *self.frames(explained))
        first = next((frame for frame in frames if not folds(frame)), None)
        return f"in {first}" if first is not None else f"at {explained.finding.address:#x}"


def _candidate_words(block: Block | None, reason: str) -> str:
    return reason if block is None else f"{block.state} block at {block.address:#x}: {reason}"
