"""`check`: what broke the heap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from heapdump.analyses.damage.select import FindingFilter, rule_sentences, select_findings
from heapdump.commands.common.addresses import heap_in, place_span
from heapdump.commands.common.explained_findings import FindingRecorder
from heapdump.commands.common.gaps import report_gaps, shown_damage, unchecked_lines, walk_gaps
from heapdump.commands.common.options import HEAP_OPTION, option
from heapdump.commands.common.output_file import output, refuse_unwritable
from heapdump.commands.common.request import EXIT_FINDINGS, Request, dump_command
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table
from heapdump.trust import SIZE_IS_A_GUESS, Trust

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.damage.explained import ExplainedFinding
    from heapdump.analyses.damage.incidents import Incident
    from heapdump.snapshot import Snapshot
    from heapdump.spans import Span

_REPORTS = 5
_ACCESSES = ("heap-buffer-overflow", "heap-buffer-underflow")
"""Bugs of verifier stops whose address is the one that was accessed."""


def _damage_words(incident: Incident) -> str:
    """`37 bytes, right past the end of a 4,003-byte block`; the sentence where no block is beside the damage."""
    block = incident.culprit or incident.block or incident.leading.candidate
    finding, evidence = incident.leading.finding, incident.leading.evidence
    is_stop = finding.kind == "verifier_stop" and incident.bug in _ACCESSES
    if (finding.is_report and not is_stop) or block is None:
        return incident.sentence
    reach = evidence.high - incident.address if evidence.meaning else 0
    amount = "access" if is_stop else finding.at_least + text.plural(max(reach, finding.length), "byte")
    end, size = block.address + block.size, text.a_size(block.size, f"{block.state} block")
    if block.trust is Trust.GUESS:
        size += f" ({SIZE_IS_A_GUESS})"
    if end <= incident.address < block.end + block.entry_size:
        return f"{amount}, {_past(incident.address - end)} the end of {size}"
    if block.entry - block.entry_size <= incident.address < block.address:
        return f"{amount}, {text.plural(block.address - incident.address, 'byte')} before {size}"
    if block.address <= incident.address < end:
        return f"{amount} at +{incident.address - block.address:#x} in {size}"
    return incident.sentence


def _past(distance: int) -> str:
    return f"{text.plural(distance, 'byte')} past" if distance else "right past"


VIEW: tuple[Column[Incident], ...] = (
    Column("Severity", lambda i: i.severity, "error: cannot be in a healthy heap; warning: can, while the heap is being changed", style=lambda i: "red" if i.is_error else "yellow"),
    Column("Bug", lambda i: i.bug or i.leading.finding.kind, "the bug, as AddressSanitizer names it; else what was found or reported"),
    Column("Address", lambda i: f"{i.address:#x}", "the first bad byte; of an exception the faulting address", right=True),
    Column("Seen", lambda i: str(len(i.findings)) if len(i.findings) > 1 else "", "findings and reports of Windows that concern it (records in JSON), where there are several", right=True, rank=2),
    Column("Block", lambda i: f"{i.block.address:#x}" if i.block else "", "the block that was damaged, or is at fault", right=True, rank=1),
    Column("Culprit", lambda i: f"{i.culprit.address:#x}" if i.culprit else "", "the block whose code did it; empty where the bytes do not tell", right=True, rank=1),
    Column("What", _damage_words, "how far the damage lies from which block; else what was found", flexible=24, wraps=True),
)  # fmt: skip


@HEAP_OPTION
@option("--at", metavar="A[..B]", aliases=("--address",), help="Only what concerns an address, or its block.")
@option(
    "--kind",
    type=click.Choice(sorted(rule_sentences())),
    metavar="BUG|KIND",
    help="Only this bug, such as double-free, or findings of this kind.",
)
@option(
    "--sarif", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write SARIF 2.1.0 there, too."
)
@dump_command("check", takes_expressions=True)
def command(request: Request, heap: str | None, at: str | None, kind: str | None, sarif: Path | None) -> int:
    """What broke the heap: a report for each bug, like ASan's.

    Examines every header, list and fill of every heap, page heap stamps, guards of the CRT's debug heap, and what
    Windows reported: exit 1 when there is damage, 0 when there is none, 4 when a heap could not be checked.

    \b
    heapdump check crash.dmp
    heapdump check crash.dmp --at 0x43500060
    heapdump check crash.dmp --sarif check.sarif      for code scanning
    """
    with request.open() as snapshot:
        if sarif is not None:
            refuse_unwritable(sarif, [snapshot.dump.path])
        wanted = FindingFilter(
            heap=heap_in(request, snapshot, heap),
            at=place_span(request, snapshot, at),
            kind=kind,
        )
        found = select_findings(snapshot.explained_findings, snapshot.heaps, wanted)
        unchecked = _unchecked(snapshot, wanted.heap)
        rows = request.rows(found, FindingRecorder(request, snapshot).record)
        if sarif is not None:
            # a recorder for each list: it numbers records with the same fingerprint
            numbered = FindingRecorder(request, snapshot)
            _write_sarif(snapshot, sarif, list(numbered.records(rows)))
        recorder = FindingRecorder(request, snapshot)
        answer = Answer(
            "check",
            data=lambda: list(recorder.records(rows)),
            records=lambda: recorder.records(rows),
            page=lambda: _page(request, snapshot, rows, unchecked, wanted),
            gaps=(*walk_gaps(snapshot), *snapshot.damage.gaps, *report_gaps(snapshot), *unchecked),
            notes=snapshot.damage.remarks,
            shown=[*shown_damage(snapshot), *unchecked],
        )
        code = request.emit(snapshot, answer)
        return EXIT_FINDINGS if any(explained.finding.is_error for explained in rows) else code


def _unchecked(snapshot: Snapshot, heap: int | None) -> tuple[str, ...]:
    """A line for each heap that was not checked, or for the wanted heap alone."""
    found = [one for one in snapshot.damage.unchecked if heap in (None, snapshot.heaps[one.heap].address)]
    return unchecked_lines(snapshot.heaps, found)


def _page(
    request: Request,
    snapshot: Snapshot,
    rows: Sequence[ExplainedFinding],
    unchecked: Sequence[str],
    wanted: FindingFilter,
) -> Iterator[PageItem]:
    yield from _verdict_lines(snapshot, rows, unchecked, wanted)
    if unchecked:
        yield Lines(request.shown_lines([[(line, "yellow")] for line in unchecked]))
    if rows:
        numbers = {explained.incident for explained in rows}
        found = [incident for incident in snapshot.incidents if incident.number in numbers]
        shown, hidden = request.shown(found)
        yield Table(VIEW, shown, hidden=hidden)
        reported = shown if request.limit is None else shown[:_REPORTS]
        yield from _reports(request, snapshot, reported, len(found), _least(snapshot, wanted))
    if request.explain and snapshot.damage.remarks:
        yield Lines([[("  Note: ", "bold"), (remark, "dim")] for remark in snapshot.damage.remarks])


def _verdict_lines(
    snapshot: Snapshot, rows: Sequence[ExplainedFinding], unchecked: Sequence[str], wanted: FindingFilter
) -> Iterator[Lines]:
    examined = _examined(snapshot, wanted.heap)
    if not examined:
        no_memory = "nothing could be examined: this dump holds no heap's memory"
        yield Lines([[("no heap could be checked" if unchecked else no_memory, "yellow bold")]])
    if rows or examined:
        errors = sum(explained.finding.is_error for explained in rows)
        found = text.plural(len({explained.incident for explained in rows}), "incident")
        least = _least(snapshot, wanted)
        counts = f"{least}{found}: {text.plural(errors, 'error')}, {text.plural(len(rows) - errors, 'warning')}"
        style = "red bold" if errors else "yellow bold" if unchecked else "green bold"
        nothing = "no damage found" if wanted.kind is None else f"no {wanted.kind} found"
        yield Lines([[(counts if rows else nothing, style), (examined, "")]])
    omitted = len({one.incident for one in snapshot.explained_findings} - {one.incident for one in rows})
    if omitted:
        yield Lines([[(f"left out by options: {text.plural(omitted, 'other incident')}", "yellow")]])
    if wanted.at is not None and not _heaps_at(snapshot, wanted.at):
        yield Lines([[("no heap has memory there", "yellow")]])


def _heaps_at(snapshot: Snapshot, at: Span) -> bool:
    """True where memory of a heap is at an address of the span."""
    from heapdump.analyses.memory.regions import select

    return any("heap" in region.usage.lower() for region in select(snapshot.usage, at=at))


def _examined(snapshot: Snapshot, heap: int | None) -> str:
    """The number of heaps and headers that were examined, of all heaps or of the one at an address; "" for none."""
    unchecked = {one.heap for one in snapshot.damage.unchecked}
    chosen = {index for index, one in enumerate(snapshot.heaps) if heap in (None, one.address)} - unchecked
    counts = [count for index, count in snapshot.walk.counts.items() if index in chosen]
    headers = sum(count.headers for count in counts)
    return f": {text.plural(len(counts), 'heap')} with {text.plural(headers, 'header')} examined" if counts else ""


def _least(snapshot: Snapshot, wanted: FindingFilter) -> str:
    """The words before a number of incidents where there may be more."""
    cut = snapshot.damage.cut
    return "at least " if (cut if wanted.heap is None else wanted.heap in cut) else ""


def _reports(
    request: Request, snapshot: Snapshot, shown: Sequence[Incident], total: int, least: str
) -> Iterator[Lines]:
    from heapdump.commands.common.incident_report import IncidentReporter
    from heapdump.render.asan import report_lines

    reporter = IncidentReporter(snapshot, FindingRecorder(request, snapshot))
    for incident in shown:
        yield Lines(list(report_lines(reporter.report(incident))))
    if len(shown) < total:
        more = text.plural(total - len(shown), "more report")
        yield Lines([[(f"… {least}{more} (--all, or --at ADDRESS for one)", "dim")]])


def _write_sarif(snapshot: Snapshot, path: Path, records: list[Record]) -> None:
    from heapdump import __version__
    from heapdump.render.sarif import sarif_document

    document = sarif_document(records, rule_sentences(), __version__, snapshot.dump.path.name)
    with output(path, [snapshot.dump.path]) as stream:
        stream.write(document)
