"""`check`: what broke the heap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heapdump.commands.common.block_rows import unchecked_lines, walk_gaps
from heapdump.commands.common.damage_report import RULES, ProblemRecorder
from heapdump.commands.common.request import EXIT_FINDINGS, Request, dump_command
from heapdump.errors import CannotWrite
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.damage.check import Problem
    from heapdump.snapshot import Snapshot

_REPORTS = 5
VIEW: tuple[Column[Problem], ...] = (
    Column("Severity", lambda p: p.finding.severity, "error: cannot be in a healthy heap; warning: can, while the heap is being changed", style=lambda p: "red" if p.finding.severity == "error" else "yellow"),
    Column("Kind", lambda p: p.finding.kind, "what is damaged, or what Windows reported"),
    Column("Address", lambda p: f"{p.finding.address:#x}", "the first damaged byte; of an exception the faulting address", right=True),
    Column("Bytes", lambda p: text.count(p.finding.length), "damaged bytes that are known", right=True, rank=2),
    Column("Block", lambda p: f"{p.block.address:#x}" if p.block else "-", "the block that was damaged", right=True, rank=1),
    Column("Culprit", lambda p: f"{p.culprit.address:#x}" if p.culprit else "-", "the block whose code most likely did it", right=True, rank=1),
    Column("What", lambda p: p.finding.message, "in words", flexible=24),
)  # fmt: skip


@click.option("--heap", metavar="ADDR", help="Only this heap.")
@click.option("--address", metavar="ADDR", help="Only what concerns this address, or the block that holds it.")
@click.option("--kind", type=click.Choice(sorted(RULES)), help="Only damage of this kind.")
@click.option(
    "--sarif", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write SARIF 2.1.0 there, too."
)
@dump_command("check")
def command(request: Request, heap: str | None, address: str | None, kind: str | None, sarif: Path | None) -> int:
    """What broke the heap: every damaged place, its victim, the culprit.

    Examines every header, list and fill of every heap, page heap stamps, guards of the CRT's debug heap, and what
    Windows reported: exit 1 when there is damage, 0 when there is none, 4 when a heap could not be checked.

    \b
    heapdump check crash.dmp
    heapdump check crash.dmp --address 0x43500060
    heapdump check crash.dmp --sarif check.sarif      for code scanning
    """
    with request.open() as snapshot:
        handle = text.parse_address(heap) if heap else None
        wanted = _selected(snapshot, handle, text.parse_address(address) if address else None, kind)
        unchecked = _unchecked(snapshot, handle)
        rows = request.rows(wanted, ProblemRecorder(request, snapshot).record)
        if sarif is not None:  # a recorder of its own, since it numbers what it is asked for more than once
            ids = ProblemRecorder(request, snapshot)
            _write_sarif(snapshot, sarif, [ids.record(problem) for problem in rows])
        recorder = ProblemRecorder(request, snapshot)
        answer = Answer(
            "check",
            data=lambda: [recorder.record(problem) for problem in rows],
            records=lambda: (recorder.record(problem) for problem in rows),
            parts=lambda: _parts(request, snapshot, rows, recorder, unchecked),
            gaps=(*walk_gaps(snapshot), *snapshot.damage.gaps, *unchecked),
        )
        code = request.emit(snapshot, answer)
        return EXIT_FINDINGS if any(problem.finding.severity == "error" for problem in rows) else code


def _selected(snapshot: Snapshot, heap: int | None, address: int | None, kind: str | None) -> list[Problem]:
    from heapdump.analyses.blocks.select import heap_index

    if heap is not None:
        heap_index(snapshot.heaps, heap)
    return [
        problem
        for problem in snapshot.problems
        if (
            heap is None
            or problem.finding.heap == heap
            or (problem.block is not None and snapshot.heaps[problem.block.heap].address == heap)
        )
        and (kind is None or problem.finding.kind == kind)
        and (address is None or _concerns(problem, address))
    ]


def _unchecked(snapshot: Snapshot, heap: int | None) -> tuple[str, ...]:
    """A line for each heap that was not checked, or for the wanted heap alone."""
    found = [one for one in snapshot.damage.unchecked if heap in (None, snapshot.heaps[one.heap].address)]
    return unchecked_lines(snapshot.heaps, found)


def _concerns(problem: Problem, address: int) -> bool:
    """True when the damage, its victim or its culprit holds the address."""
    finding = problem.finding
    spans = [(finding.address, finding.address + max(finding.length, 1))]
    spans += [(block.entry, block.end) for block in (problem.block, problem.culprit) if block is not None]
    return any(low <= address < high for low, high in spans)


def verdict(problems: Sequence[Problem]) -> str:
    """One line: how many errors and warnings, or that there are none."""
    errors = sum(problem.finding.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    return f"{text.plural(errors, 'error')}, {text.plural(warnings, 'warning')}"


def _parts(
    request: Request, snapshot: Snapshot, rows: Sequence[Problem], recorder: ProblemRecorder, unchecked: Sequence[str]
) -> Iterator[Table[Any] | Lines]:
    is_bad = any(problem.finding.severity == "error" for problem in rows)
    examined = _examined(snapshot)
    if not examined:
        none = (
            "no heap could be checked" if unchecked else "nothing could be examined: this dump holds no heap's memory"
        )
        yield Lines([[(none, "yellow bold")]])
    if rows or examined:
        words = verdict(rows) if rows else "no damage found"
        style = "red bold" if is_bad else "yellow bold" if unchecked else "green bold"
        yield Lines([[(words, style), (examined, "")]])
    if unchecked:
        shown_lines, more = request.shown(unchecked)
        yield Lines([*([(line, "yellow")] for line in shown_lines), *([[(f"… {more:,} more", "dim")]] if more else [])])
    if not rows:
        return
    shown, hidden = request.shown(rows)
    yield Table(VIEW, shown, hidden=hidden)
    told = shown if request.limit is None else shown[:_REPORTS]
    for problem in told:
        yield Lines(recorder.report(problem))
    if len(told) < len(rows):
        yield Lines([[(f"… {len(rows) - len(told):,} more reports (--all, or --address for one)", "dim")]])


def _examined(snapshot: Snapshot) -> str:
    """The number of heaps and headers that were examined; "" for none."""
    not_checked = {one.heap for one in snapshot.damage.unchecked}
    counts = [count for heap, count in snapshot.walk.counts.items() if heap not in not_checked]
    headers = sum(count.headers for count in counts)
    return f": {text.plural(len(counts), 'heap')} with {text.plural(headers, 'header')} examined" if counts else ""


def _write_sarif(snapshot: Snapshot, path: Path, records: list[Record]) -> None:
    from heapdump import __version__
    from heapdump.commands.common.files import replaced
    from heapdump.render.sarif import sarif_document

    document = sarif_document(records, RULES, __version__, snapshot.dump.path.name)
    try:
        with replaced(path, snapshot.dump.path) as stream:
            stream.write(document)
    except OSError as error:
        raise CannotWrite(path, error) from error
