"""`leaks --unreachable`: the report on blocks that nobody holds, as tables, records, or in LeakSanitizer's words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from heapdump.commands.common.block_rows import walk_gaps
from heapdump.commands.common.request import Request
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, Record, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from heapdump.analyses.allocated.leaks import LeakGroup, Leaks, Question
    from heapdump.analyses.allocated.suppressions import Suppressions
    from heapdump.analyses.graph.unreachable_report import Lost, LostGroup, Report, Sum
    from heapdump.snapshot import Snapshot

_MOST_MEMBERS = 8
_MEANINGS = {
    "direct": "nothing points to them, circles aside", "indirect": "only leaked blocks point to them",
    "possible": "only interior pointers, or weak roots",
    "reachable": "still held by the program", "suppressed": "of suppressed stacks, or held by them",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What of the report is wanted. `exitcode`: when something is leaked, None: none of its own."""

    max_leaks: int
    objects: bool
    unaligned: bool
    suppressions: bool
    exitcode: int | None
    as_lsan: bool


@dataclass(frozen=True)
class Asked:
    """The question, the suppressions, what groups blocks, and what makes the JSON record of a group.

    `filtered`: the question is about its rows only, else about all blocks. `full_stacks`: frames of allocators are shown, too.
    """

    question: Question
    filtered: bool
    suppressions: Suppressions
    group: Callable[[Question, Suppressions], Leaks]
    record: Callable[[LeakGroup], Record]
    full_stacks: bool


_OPTIONS = (
    click.option("--max-leaks", type=click.IntRange(0), default=0, metavar="N", help="With --unreachable: report the N top groups; 0 = all."),
    click.option("--report-objects", is_flag=True, help="With --unreachable: the address of every block."),
    click.option("--use-unaligned", is_flag=True, help="With --unreachable: pointers may begin at any byte."),
    click.option("--print-suppressions/--no-print-suppressions", default=True, help="With --lsan-compat: what was suppressed.  [default: on]"),
    click.option("--exitcode", type=click.IntRange(0, 255), metavar="N", help="With --unreachable: exit with N when blocks are leaked.  [default: as always; 23 with --lsan-compat]"),
    click.option("--lsan-compat", is_flag=True, help="With --unreachable: LeakSanitizer's own report and reckoning of circles."),
)  # fmt: skip


def lost_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of --unreachable."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def read_options(
    *, unreachable: bool, export: str | None, max_leaks: int, report_objects: bool, use_unaligned: bool, print_suppressions: bool,
    exitcode: int | None, lsan_compat: bool,
) -> Options | None:  # fmt: skip
    """What of the report is wanted; None where no report is.

    Raises:
        WrongUsage: options that go with --unreachable only, or do not go with it.
    """
    if not unreachable:
        if (
            max_leaks
            or report_objects
            or use_unaligned
            or exitcode is not None
            or lsan_compat
            or not print_suppressions
        ):
            raise WrongUsage(
                "--max-leaks, --report-objects, --use-unaligned, --exitcode, --lsan-compat and --no-print-suppressions go with --unreachable"
            )
        return None
    if export:
        raise WrongUsage("--export writes the stacks of all busy blocks, it does not go with --unreachable")
    code = 23 if lsan_compat and exitcode is None else exitcode
    return Options(max_leaks, report_objects, use_unaligned, print_suppressions, code, lsan_compat)


def emit_lost(request: Request, snapshot: Snapshot, asked: Asked, options: Options) -> int:
    """Finds the blocks and writes the report; the exit code."""
    from heapdump.analyses.graph.unreachable import classify
    from heapdump.analyses.graph.unreachable_report import find_lost, missing_evidence

    graph = snapshot.sweep(unaligned=True) if options.unaligned else snapshot.graph
    reached = classify(graph) if options.unaligned else snapshot.reached
    kept = partial(_kept, snapshot, asked, is_plain=not (options.unaligned or options.as_lsan))
    lost = find_lost(
        graph, reached, snapshot.walk.table, snapshot.stacks, asked.question, asked.suppressions, asked.group, kept,
        filtered=asked.filtered, as_lsan=options.as_lsan,
    )  # fmt: skip
    gaps = (*walk_gaps(snapshot), *missing_evidence(graph), *unmatched(snapshot, asked.suppressions))
    if options.as_lsan:
        from heapdump.commands.common.lsan import as_lsan

        shown = as_lsan(
            snapshot, lost, options.max_leaks, with_objects=options.objects, with_suppressions=options.suppressions
        )
        code = request.write(snapshot, shown, gaps)
    else:
        missing = (f"{lost.missing}; grouped by {lost.by} instead",) if lost.missing else ()
        code = request.emit(snapshot, _answer(request, snapshot, asked, lost, (*gaps, *missing), options))
    return options.exitcode if options.exitcode is not None and lost.leaked.blocks else code


def unmatched(snapshot: Snapshot, suppressions: Suppressions) -> tuple[str, ...]:
    """Why suppressions were not applied; nothing where they were, or there are none."""
    if not suppressions.rules or snapshot.stacks.are_recorded:
        return ()
    return ("suppressions match allocation stacks, and none are recorded in this dump: nothing was suppressed",)


def _kept(snapshot: Snapshot, asked: Asked, make: Callable[[], Report], *, is_plain: bool) -> Report:
    """The report on all blocks comes from the index, where its groups are not named by files that change."""
    from heapdump.analyses.allocated.leaks import BY_STACK

    question = asked.question
    if not is_plain or asked.filtered or asked.suppressions.rules or question.min_bytes or question.by in BY_STACK:
        return make()
    return snapshot.unreachable_report(question.by, make)


def _answer(
    request: Request, snapshot: Snapshot, asked: Asked, lost: Lost, gaps: tuple[str, ...], options: Options
) -> Answer:
    from heapdump.analyses.graph.unreachable_report import CAVEATS

    def groups() -> list[Record]:
        """A record for each group."""
        return [{"kind": one.kind.name.lower()} | asked.record(one.found) for one in _top(lost, options)]

    unused = [f"suppression {rule.text!r} matched nothing" for rule in lost.unused]
    return Answer(
        "leaks",
        data=lambda: _data(snapshot, lost, options, groups()),
        records=lambda: _objects(snapshot, lost) if options.objects else groups(),
        parts=lambda: _parts(request, snapshot, asked, lost, options),
        gaps=gaps,
        notes=(*unused, *CAVEATS),
    )


def _top(lost: Lost, options: Options) -> tuple[LostGroup, ...]:
    return lost.groups[: options.max_leaks] if options.max_leaks else lost.groups


def _sum(found: Sum) -> Record:
    return {"blocks": found.blocks, "bytes": found.bytes}


def _data(snapshot: Snapshot, lost: Lost, options: Options, groups: list[Record]) -> Record:
    from heapdump.analyses.graph.unreachable import Reach

    table = snapshot.walk.table
    kinds = (Reach.DIRECT, Reach.INDIRECT, Reach.POSSIBLE, Reach.REACHABLE)
    data: Record = {kind.name.lower(): _sum(lost.sums[kind]) for kind in kinds}
    data["groups"] = groups
    data["cycles"] = [
        {"blocks": len(rows), "bytes": int(table.size[rows].sum()), "members": _addresses(snapshot, rows)}
        for rows in lost.cycles
    ]
    data["suppressed"] = [{"rule": rule.text, "count": rule.count, "bytes": rule.bytes} for rule in lost.suppressed]
    data["suppressed_total"] = _sum(lost.sums[Reach.IGNORED])
    if options.objects:
        data["objects"] = list(_objects(snapshot, lost))
    return data


def _objects(snapshot: Snapshot, lost: Lost) -> Iterator[Record]:
    from heapdump.analyses.graph.unreachable import Reach

    rows, kinds = lost.blocks()
    for block, kind in zip(snapshot.walk.table.blocks(rows), kinds.tolist(), strict=True):
        yield {"address": hex(block.address), "size": block.size, "kind": Reach(kind).name.lower()}


def _addresses(snapshot: Snapshot, rows: Any) -> list[str]:
    return [hex(block.address) for block in snapshot.walk.table.blocks(rows)]


def _columns() -> tuple[Column[LostGroup], ...]:
    from heapdump.commands.leaks import VIEW

    def of_group(column: Column[LeakGroup]) -> Column[LostGroup]:
        """The column of `leaks`, for a group with a kind."""
        explain = "of the bytes of all blocks of its kind" if column.title == "Share" else column.explain
        return Column(
            column.title,
            lambda one: column.text(one.found),
            explain,
            right=column.right,
            rank=column.rank,
            flexible=column.flexible,
        )

    kind = Column[Any]("Kind", lambda one: one.kind.name.lower(), "how its blocks can be reached: see the table above")
    return (kind, *map(of_group, VIEW))


def _parts(
    request: Request, snapshot: Snapshot, asked: Asked, lost: Lost, options: Options
) -> Iterator[Table[Any] | Lines]:
    from heapdump.analyses.graph.unreachable import Reach
    from heapdump.analyses.graph.unreachable_report import CAVEATS
    from heapdump.commands.leaks import stacks

    kinds = [Reach.DIRECT, Reach.INDIRECT, Reach.POSSIBLE, Reach.REACHABLE]
    sums = [(kind.name.lower(), lost.sums[kind]) for kind in kinds]
    if lost.sums[Reach.IGNORED].blocks:
        sums.append(("suppressed", lost.sums[Reach.IGNORED]))
    yield Table(
        (
            Column(
                "Kind", lambda row: row[0], "by chains of pointers from registers, stacks, module data, TEBs and PEBs"
            ),
            Column("Blocks", lambda row: text.count(row[1].blocks), "busy blocks of the program", right=True),
            Column("Bytes", lambda row: text.count(row[1].bytes), "that it asked for in them", right=True),
            Column("", lambda row: text.size(row[1].bytes), "the same in units of 1024", right=True),
            Column("Meaning", lambda row: _MEANINGS[row[0]], "in words", flexible=24),
        ),
        sums,
    )
    top = _top(lost, options)
    shown, hidden = request.shown(top)
    nothing = "no group of leaked blocks is like that" if lost.left.blocks else "every block is held by the program"
    yield Table(_columns(), shown, hidden=hidden + len(lost.groups) - len(top), empty=nothing)
    if lost.left.blocks:
        yield Lines(
            [
                [
                    (
                        f"left out: {text.plural(lost.left.blocks, 'block')} with {text.size(lost.left.bytes)} in groups that are smaller, or not asked for",
                        "dim",
                    )
                ]
            ]
        )
    if lost.by == "stack":
        yield from stacks(snapshot, [one.found for one in shown], asked.question, full_stacks=asked.full_stacks)
    if lost.cycles:
        yield Lines(list(_cycles(request, snapshot, lost)))
    if options.objects:
        yield _table_of_objects(snapshot, lost, request)
    for rule in lost.suppressed:
        yield Lines(
            [[(f"suppressed by {rule.text}: {text.plural(rule.count, 'block')} with {text.size(rule.bytes)}", "dim")]]
        )
    for rule in lost.unused:
        yield Lines([[(f"suppression {rule.text} matched nothing", "dim")]])
    yield Lines([[(caveat, "dim")] for caveat in CAVEATS])


def _cycles(request: Request, snapshot: Snapshot, lost: Lost) -> Iterator[list[tuple[str, str]]]:
    shown, hidden = request.shown(lost.cycles)
    for rows in shown:
        names = _addresses(snapshot, rows[:_MOST_MEMBERS])
        more = f" … {len(rows) - len(names)} more" if len(rows) > len(names) else ""
        yield [(f"circle of {text.plural(len(rows), 'block')} that nothing else holds: {', '.join(names)}{more}", "")]
    if hidden:
        yield [(f"… {text.plural(hidden, 'more circle')}", "dim")]


def _table_of_objects(snapshot: Snapshot, lost: Lost, request: Request) -> Table[Any]:
    shown, hidden = request.shown(list(_objects(snapshot, lost)))
    columns: tuple[Column[Any], ...] = (
        Column("Address", lambda row: row["address"], "what the program got", right=True),
        Column("Size", lambda row: text.count(row["size"]), "bytes it asked for", right=True),
        Column("Kind", lambda row: row["kind"], "how it can be reached"),
    )
    return Table(columns, shown, hidden=hidden, title="Objects")
