"""`check`: what broke the heap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from heapdump.analyses.damage.select import FindingFilter, rule_sentences, select_findings
from heapdump.commands.common.addresses import address_in
from heapdump.commands.common.explained_findings import FindingRecorder
from heapdump.commands.common.gaps import unchecked_lines, walk_gaps
from heapdump.commands.common.request import EXIT_FINDINGS, Request, dump_command
from heapdump.errors import CannotWrite
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.damage.explained import ExplainedFinding
    from heapdump.snapshot import Snapshot

_REPORTS = 5
VIEW: tuple[Column[ExplainedFinding], ...] = (
    Column("Severity", lambda e: e.finding.severity, "error: cannot be in a healthy heap; warning: can, while the heap is being changed", style=lambda e: "red" if e.finding.is_error else "yellow"),
    Column("Kind", lambda e: e.finding.kind, "what is damaged, or what Windows reported"),
    Column("Address", lambda e: f"{e.finding.address:#x}", "the first damaged byte; of an exception the faulting address", right=True),
    Column("Bytes", lambda e: text.count(e.finding.length), "damaged bytes that are known", right=True, rank=2),
    Column("Block", lambda e: f"{e.block.address:#x}" if e.block else "-", "the block that was damaged", right=True, rank=1),
    Column("Candidate", lambda e: f"{e.candidate.address:#x}" if e.candidate else "-", "the block whose code most likely did it (`culprit` in JSON)", right=True, rank=1),
    Column("What", lambda e: e.finding.message, "in words", flexible=24),
)  # fmt: skip


@click.option("--heap", metavar="ADDR", help="Only this heap.")
@click.option("--address", metavar="ADDR", help="Only what concerns this address, or the block that holds it.")
@click.option("--kind", type=click.Choice(sorted(rule_sentences())), help="Only damage of this kind.")
@click.option(
    "--sarif", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write SARIF 2.1.0 there, too."
)
@dump_command("check", takes_expressions=True)
def command(request: Request, heap: str | None, address: str | None, kind: str | None, sarif: Path | None) -> int:
    """What broke the heap: every damaged place, its block, and the candidates.

    Examines every header, list and fill of every heap, page heap stamps, guards of the CRT's debug heap, and what
    Windows reported: exit 1 when there is damage, 0 when there is none, 4 when a heap could not be checked.

    \b
    heapdump check crash.dmp
    heapdump check crash.dmp --address 0x43500060
    heapdump check crash.dmp --sarif check.sarif      for code scanning
    """
    with request.open() as snapshot:
        wanted = FindingFilter(
            heap=address_in(request, snapshot, heap) if heap else None,
            address=address_in(request, snapshot, address) if address else None,
            kind=kind,
        )
        found = select_findings(snapshot.explained_findings, snapshot.heaps, wanted)
        unchecked = _unchecked(snapshot, wanted.heap)
        rows = request.rows(found, FindingRecorder(request, snapshot).record)
        if sarif is not None:
            # a recorder for each list: it numbers records with the same fingerprint
            numbered = FindingRecorder(request, snapshot)
            _write_sarif(snapshot, sarif, [numbered.record(explained) for explained in rows])
        recorder = FindingRecorder(request, snapshot)
        answer = Answer(
            "check",
            data=lambda: [recorder.record(explained) for explained in rows],
            records=lambda: (recorder.record(explained) for explained in rows),
            page=lambda: _page(request, snapshot, rows, unchecked),
            gaps=(*walk_gaps(snapshot), *snapshot.damage.gaps, *unchecked),
        )
        code = request.emit(snapshot, answer)
        return EXIT_FINDINGS if any(explained.finding.is_error for explained in rows) else code


def _unchecked(snapshot: Snapshot, heap: int | None) -> tuple[str, ...]:
    """A line for each heap that was not checked, or for the wanted heap alone."""
    found = [one for one in snapshot.damage.unchecked if heap in (None, snapshot.heaps[one.heap].address)]
    return unchecked_lines(snapshot.heaps, found)


def _page(
    request: Request, snapshot: Snapshot, rows: Sequence[ExplainedFinding], unchecked: Sequence[str]
) -> Iterator[PageItem]:
    yield from _verdict_lines(snapshot, rows, unchecked)
    if unchecked:
        yield Lines(request.shown_lines([[(line, "yellow")] for line in unchecked]))
    if rows:
        shown, hidden = request.shown(rows)
        yield Table(VIEW, shown, hidden=hidden)
        yield from _reports(request, snapshot, shown if request.limit is None else shown[:_REPORTS], len(rows))


def _verdict_lines(snapshot: Snapshot, rows: Sequence[ExplainedFinding], unchecked: Sequence[str]) -> Iterator[Lines]:
    examined = _examined(snapshot)
    if not examined:
        no_memory = "nothing could be examined: this dump holds no heap's memory"
        yield Lines([[("no heap could be checked" if unchecked else no_memory, "yellow bold")]])
    if rows or examined:
        errors = sum(explained.finding.is_error for explained in rows)
        counts = f"{text.plural(errors, 'error')}, {text.plural(len(rows) - errors, 'warning')}"
        style = "red bold" if errors else "yellow bold" if unchecked else "green bold"
        yield Lines([[(counts if rows else "no damage found", style), (examined, "")]])


def _examined(snapshot: Snapshot) -> str:
    """The number of heaps and headers that were examined; "" for none."""
    unchecked = {one.heap for one in snapshot.damage.unchecked}
    counts = [count for heap, count in snapshot.walk.counts.items() if heap not in unchecked]
    headers = sum(count.headers for count in counts)
    return f": {text.plural(len(counts), 'heap')} with {text.plural(headers, 'header')} examined" if counts else ""


def _reports(request: Request, snapshot: Snapshot, shown: Sequence[ExplainedFinding], total: int) -> Iterator[Lines]:
    from heapdump.render.asan import report_lines

    recorder = FindingRecorder(request, snapshot)
    for explained in shown:
        yield Lines(list(report_lines(recorder.report(explained))))
    if len(shown) < total:
        yield Lines([[(f"… {total - len(shown):,} more reports (--all, or --address for one)", "dim")]])


def _write_sarif(snapshot: Snapshot, path: Path, records: list[Record]) -> None:
    from heapdump import __version__
    from heapdump.commands.common.files import replaced
    from heapdump.render.sarif import sarif_document

    document = sarif_document(records, rule_sentences(), __version__, snapshot.dump.path.name)
    try:
        with replaced(path, [snapshot.dump.path]) as stream:
            stream.write(document)
    except OSError as error:
        raise CannotWrite(path, error) from error
