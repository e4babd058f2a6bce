"""Problems as records, and as reports in the manner of AddressSanitizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.block_rows import Recorder, frame_record, frames_of, stack_number
from heapdump.render import text
from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.analyses.damage.check import Problem
    from heapdump.blocks.table import Block
    from heapdump.commands.common.request import Request
    from heapdump.process.stacks.frames import StackFrame
    from heapdump.process.symbols.namer import Frame
    from heapdump.snapshot import Snapshot

RULES = {
    "entry_header": "An entry header of a heap is damaged", "size_chain": "Sizes of neighbouring entries contradict each other",
    "segment": "A segment's own data or list is damaged", "ucr": "A list of uncommitted ranges is damaged",
    "free_list": "A free list is damaged", "virtual_list": "The list of large blocks is damaged",
    "lfh_subsegment": "A block header or subsegment of the low fragmentation heap is damaged",
    "vs_chunk": "A chunk header of a segment heap is damaged", "large_metadata": "The tree of large allocations is damaged",
    "tail_fill": "Bytes behind a block were written to", "free_fill": "A free block was written to",
    "page_header": "The stamps before a page heap block are damaged", "page_suffix": "Bytes behind a page heap block were written to",
    "page_freed_fill": "A freed page heap block was written to", "crt_guard": "A guard of the CRT's debug heap is damaged",
    "failure_record": "ntdll found a heap damaged", "exception": "The process raised an exception",
    "verifier_stop": "Application Verifier stopped the process",
}  # fmt: skip
_HEX_LINE, _MOST_FRAMES = 16, 12
_BESIDE = 0x2000
Styled = list[tuple[str, str]]


class ProblemRecorder:
    """Makes records and reports of problems; each stack is named once."""

    def __init__(self, request: Request, snapshot: Snapshot) -> None:
        """One for all problems of a dump."""
        self._request, self._snapshot = request, snapshot
        self._blocks = Recorder(snapshot)
        self._seen: dict[str, int] = {}
        self._raised_by: list[StackFrame] | None = None

    def frames(self, problem: Problem) -> list[Frame]:
        """The stack of the culprit, else of the victim; else what ntdll noted."""
        block = problem.culprit or problem.block
        frames = frames_of(self._request, self._snapshot, block) if block is not None else []
        if not frames and problem.report is not None and problem.report.frames:
            namer = self._snapshot.namer(self._request.image_path, self._request.symbol_path)
            return [frame for address in problem.report.frames for frame in namer.frames(address)]
        return frames

    def record(self, problem: Problem) -> Record:
        """The JSON record (interface.md, check)."""
        finding, frames = problem.finding, self.frames(problem)
        heap = finding.heap or (self._snapshot.heaps[problem.block.heap].address if problem.block else 0)
        return {
            "id": self._id(problem, frames),
            "kind": finding.kind,
            "severity": finding.severity,
            "heap": hex(heap) if heap else None,
            "block": self._block(problem.block),
            "address": hex(finding.address),
            "length": finding.length,
            "message": finding.message,
            "expected": finding.expected or None,
            "found": finding.found or None,
            "culprit": self._block(problem.culprit),
            "frames": [frame_record(frame) for frame in frames],
            "evidence": self._evidence(problem),
        }

    def _id(self, problem: Problem, frames: list[Frame]) -> str:
        """The fingerprint, numbered where several problems share it."""
        from heapdump.analyses.damage.check import fingerprint

        where = self._snapshot.process.where
        name = fingerprint(problem, [where(frame.address) if frame.module else "?" for frame in frames])
        self._seen[name] = self._seen.get(name, 0) + 1
        return name if self._seen[name] == 1 else f"{name}-{self._seen[name]}"

    def _block(self, block: Block | None) -> Record | None:
        return None if block is None else self._blocks(block)

    def _evidence(self, problem: Problem) -> Record:
        evidence, report = problem.evidence, problem.report
        return {
            "bug": problem.bug,
            "looks_like": evidence.looks or None,
            "reaches": [hex(evidence.low), hex(evidence.high)],
            "memory": {"address": hex(evidence.start), "bytes": None if evidence.data is None else evidence.data.hex()},
            "candidates": [{"block": self._block(c.block), "reason": c.reason} for c in problem.candidates],
            "before": self._block(evidence.before),
            "after": self._block(evidence.after),
            "alike": problem.alike,
            "alike_stack": problem.alike_stack,
            "raised_by": [frame_record(found.frame) for found in self._accessing()]
            if problem.finding.kind == "exception"
            else [],
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

    def report(self, problem: Problem) -> list[Styled]:
        """The problem as AddressSanitizer would tell it."""
        finding = problem.finding
        name = problem.bug or finding.kind
        pid = self._snapshot.process.pid
        style = "red bold" if finding.severity == "error" else "yellow bold"
        lines: list[Styled] = [
            [
                (f"=={pid if pid is not None else '?'}=={finding.severity.upper()}: heapdump: {name}", style),
                (f" on address {finding.address:#x}", ""),
            ],
            [(finding.message, "")],
        ]
        if finding.expected or problem.evidence.looks:
            lines += self._bytes(problem)
        lines += self._access(problem) + self._regions(problem) + self._suspects(problem)
        if finding.kind not in ("exception", "failure_record", "verifier_stop"):
            lines += self._memory(problem) + self._shadow(problem)
        return [*lines, [(f"SUMMARY: heapdump: {name} {self._where(problem)}", "bold")]]

    def _bytes(self, problem: Problem) -> list[Styled]:
        finding, evidence = problem.finding, problem.evidence
        lines: list[Styled] = []
        if finding.expected:
            lines.append([("  expected  ", "dim"), (finding.expected, "green")])
        if finding.found:
            lines.append([("  found     ", "dim"), (finding.found, "red")])
        if evidence.looks and evidence.data is not None:
            reach = (
                f", from {evidence.low:#x} to {evidence.high:#x}"
                if evidence.high - evidence.low > finding.length
                else ""
            )
            lines.append([("  which is  ", "dim"), (evidence.looks + reach, "")])
        return lines

    def _access(self, problem: Problem) -> list[Styled]:
        """Where the exception was raised."""
        frames = self._accessing() if problem.finding.kind == "exception" else []
        lines: list[Styled] = [[("raised by:", "bold")]] if frames else []
        return lines + [
            [(f"    #{i} {found.frame}", ""), (f"  ({found.how})", "dim")]
            for i, found in enumerate(frames[:_MOST_FRAMES])
        ]

    def _accessing(self) -> list[StackFrame]:
        if self._raised_by is None:
            self._raised_by = self._snapshot.crashed_frames(self._request.image_path, self._request.symbol_path)
        return self._raised_by

    def _regions(self, problem: Problem) -> list[Styled]:
        """`0x… is located N bytes after 24-byte region [a,b)`, and its stack."""
        block = problem.culprit or problem.block
        if block is None:
            return []
        address, end = problem.finding.address, block.address + block.size
        if address >= end:
            place = f"{text.plural(address - end, 'byte')} after"
        elif address < block.address:
            place = f"{text.plural(block.address - address, 'byte')} before"
        else:
            place = f"{text.plural(address - block.address, 'byte')} inside"
        region = f"{block.size:,}-byte region [{block.address:#x},{end:#x})"
        # a stop, or heap corruption, is raised in code, which lies nowhere near the block
        is_beside = block.entry - _BESIDE <= address < block.end + _BESIDE
        where = f"{address:#x} is located {place} {region}" if is_beside else f"the block at fault is the {region}"
        lines: list[Styled] = [[(where, ""), (f", {block.state} {block.kind.word}", "dim")]]
        frames = self.frames(problem)
        if frames:
            verb = (
                "ntdll noted this stack:"
                if not stack_number(self._snapshot, block)
                else "freed by:"
                if block.state == "free"
                else "allocated by:"
            )
            lines.append([(verb, "bold")])
            lines += [[(f"    #{i} {frame}", "")] for i, frame in enumerate(frames)]
        return lines

    def _suspects(self, problem: Problem) -> list[Styled]:
        if problem.report is not None or not problem.candidates:
            return []
        lines: list[Styled] = [[("suspects, likeliest first:", "bold")]]
        for number, candidate in enumerate(problem.candidates, 1):
            block = candidate.block
            who = f"{block.state} block at {block.address:#x}: " if block is not None else ""
            lines.append([(f"    {number}. {who}{candidate.reason}", "")])
        for count, what in ((problem.alike, "of that size"), (problem.alike_stack, "allocated by the same stack")):
            if count:
                lines.append(
                    [(f"    {text.plural(count, 'other place')} with the same damage beside a block {what}", "")]
                )
        return lines

    def _memory(self, problem: Problem) -> list[Styled]:
        """A hex view; damaged bytes between brackets, so that it reads without colours too."""
        from heapdump.analyses.memory.usage import preview

        evidence, finding = problem.evidence, problem.finding
        if evidence.data is None:
            return [[("the memory around it is not in the dump", "dim")]]
        lines: list[Styled] = [[("memory around it:", "bold")]]
        low, high = finding.address, finding.address + finding.length
        for at in range(0, len(evidence.data), _HEX_LINE):
            row, start = evidence.data[at : at + _HEX_LINE], evidence.start + at
            pieces: Styled = [(f"  {'=>' if start <= low < start + _HEX_LINE else '  '} {start:#x}  ", "dim")]
            for i, byte in enumerate(row):
                here = low <= start + i < high
                opens = "[" if start + i == low else " "
                pieces.append((f"{opens}{byte:02x}{']' if start + i == high - 1 else ''}", "red bold" if here else ""))
            lines.append([*pieces, ("  " + preview(row), "dim")])
        return lines

    def _shadow(self, problem: Problem) -> list[Styled]:
        from heapdump.analyses.damage.memory_rows import LEGEND, shadow

        rows = shadow(self._snapshot.walk.table, problem.finding.address, problem.finding.length)
        lines: list[Styled] = [
            [("heap map, 8 bytes a cell:", "bold"), (f" {', '.join(f'{k} {v}' for k, v in LEGEND.items())}", "dim")]
        ]
        lines += [[(f"  {'=>' if row.is_hit else '  '} {row.address:#x}  {' '.join(row.cells)}", "")] for row in rows]
        return lines

    def _where(self, problem: Problem) -> str:
        from heapdump.analyses.allocated.leaks import passes_on

        folds = passes_on(())
        accessing = [found.frame for found in self._accessing()] if problem.finding.kind == "exception" else []
        first = next((frame for frame in (*accessing, *self.frames(problem)) if not folds(frame)), None)
        return f"in {first}" if first is not None else f"at {problem.finding.address:#x}"
