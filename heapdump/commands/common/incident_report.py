"""Incidents as the plain data of reports in the manner of AddressSanitizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.block_words import kind_words
from heapdump.commands.common.explained_findings import FindingRecorder
from heapdump.commands.common.frames import stack_number
from heapdump.trust import SIZE_IS_A_GUESS, Trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.analyses.damage.evidence import DamageEvidence
    from heapdump.analyses.damage.explained import ExplainedFinding
    from heapdump.analyses.damage.incidents import Incident
    from heapdump.blocks.findings import Finding
    from heapdump.blocks.table import Block
    from heapdump.process.symbols.namer import Frame
    from heapdump.render import asan
    from heapdump.snapshot import Snapshot


class IncidentReporter:
    """Makes the reports of incidents, one for each."""

    def __init__(self, snapshot: Snapshot, recorder: FindingRecorder) -> None:
        """`recorder` names the stacks."""
        self._snapshot, self._recorder = snapshot, recorder

    def report(self, incident: Incident) -> asan.Report:
        """The plain data of the report."""
        from heapdump.render.asan import Report

        leading = incident.leading
        finding, evidence = leading.finding, leading.evidence
        noted, raised = self._noted(incident), self._raised(incident)
        end = finding.address + finding.length
        return Report(
            pid=self._snapshot.process.pid,
            name=incident_name(incident),
            severity=incident.severity,
            address=incident.address,
            length=max(end - incident.address, finding.length),
            message=self._named(finding.message),
            seen_by=[witness(one) for one in incident.findings],
            others=[self._named(one.finding.message) for one in incident.findings[1:]],
            expected=finding.expected,
            found=finding.found,
            meaning=evidence.meaning,
            reach=(evidence.low, evidence.high),
            raised_by=[] if noted else raised,
            noted=[str(frame) for frame in noted],
            region=self._region(incident),
            candidates=[]
            if leading.report is not None
            else [_candidate_words(c.block, c.reason) for c in leading.candidates],
            is_decided=leading.culprit is not None,
            alike=leading.alike,
            alike_stack=leading.alike_stack,
            memory=None if finding.is_report else self._memory(finding, evidence),
            place=self._place(incident, noted),
            text=leading.report.text if leading.report is not None else (),
            is_code=self._is_code(incident),
        )

    def _is_code(self, incident: Incident) -> bool:
        """True where the incident's address is that of the instruction that raised the exception."""
        report, raised = incident.leading.report, self._snapshot.process.exception
        is_raised = raised is not None and raised.address == incident.address
        return is_raised and report is not None and report.access is None

    def _named(self, message: str) -> str:
        """The message with the function that the exception was raised in, as the header of every command names it."""
        process = self._snapshot.process
        if process.exception is None:
            return message
        address = process.exception.address
        return message.replace(f", at {process.where(address)}", f", at {self._recorder.place(address)}")

    def _noted(self, incident: Incident) -> list[Frame]:
        """The stack that ntdll noted when it found the damage: the best there is."""
        return [frame for one in incident.findings for frame in self._recorder.noted(one)]

    def _raised(self, incident: Incident) -> list[tuple[str, str]]:
        return [(str(found.frame), found.how) for one in incident.findings for found in self._recorder.raising(one)]

    def _region(self, incident: Incident) -> asan.MemoryRegion | None:
        from heapdump.render.asan import MemoryRegion

        block = incident.culprit or incident.block or incident.leading.candidate
        if block is None:
            return None
        verb = "freed by:" if block.state == "free" else "allocated by:"
        frames = self._recorder.allocated(block) if stack_number(self._snapshot, block) else []
        words = f"{block.state} {kind_words(block.kind)}"
        if block.trust is Trust.GUESS:
            words += f"; {SIZE_IS_A_GUESS}"
        named = [str(frame) for frame in frames]
        return MemoryRegion(block.address, block.size, block.entry, block.end, words, verb, named)

    def _memory(self, finding: Finding, evidence: DamageEvidence) -> asan.MemoryView:
        from heapdump.analyses.damage.memory_rows import LEGEND, memory_rows
        from heapdump.render.asan import MemoryView

        rows = memory_rows(self._snapshot.walk.table, finding.address, finding.length)
        cells = [(row.address, row.cells, row.is_hit) for row in rows]
        return MemoryView(evidence.start, evidence.data, cells, LEGEND)

    def _place(self, incident: Incident, noted: Sequence[Frame]) -> str:
        """The first frame outside of allocators, of the best stack there is; the address where there is none."""
        from heapdump.analyses.allocated.stack_keys import first_of_program, passes_on

        raised = [found.frame for one in incident.findings for found in self._recorder.raising(one)]
        block = incident.culprit or incident.block or incident.leading.candidate
        allocated = self._recorder.allocated(block) if block is not None else ()
        for frames in (noted, raised, allocated):
            first = first_of_program(frames, passes_on(()))
            if first is not None:
                return f"in {frames[first]}"
        return f"at {incident.address:#x}"


def incident_name(incident: Incident) -> str:
    """The bug, with `likely` where it is inferred; without a bug the exception, the rule, or that it is not decided."""
    leading = incident.leading
    if incident.bug is not None:
        is_likely = any(one.report is not None and one.report.is_likely for one in incident.findings)
        return f"{incident.bug} (likely)" if is_likely else incident.bug
    if leading.report is not None:
        return leading.report.witness
    return leading.finding.rule.sentence if incident.is_error else f"contradiction ({witness(leading)})"


def witness(explained: ExplainedFinding) -> str:
    """The finding in a few words: `tail fill`, `verifier stop 0xf`."""
    return explained.report.witness if explained.report is not None else explained.finding.kind.replace("_", " ")


def _candidate_words(block: Block | None, reason: str) -> str:
    return reason if block is None else f"{block.state} block at {block.address:#x}: {reason}"
