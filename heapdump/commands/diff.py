"""`diff`: what changed between dumps."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.commands.common.comparison import Comparison, compare_dumps, holder_of
from heapdump.commands.common.diff_export import EXPORTS, export_difference
from heapdump.commands.common.export import check_options
from heapdump.commands.common.fail_on import Limits, exceeded, parse_limits
from heapdump.commands.common.group_options import read_suppressions, regex
from heapdump.commands.common.options import SIZE_OPTION, option
from heapdump.commands.common.request import EXIT_FINDINGS, Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import COMMAND, Answer, Column, Lines, PageItem, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.compare.difference import Difference, Row
    from heapdump.analyses.compare.groups import ComparedGroup
    from heapdump.commands.common.diff_sentences import DiffSentence
    from heapdump.render.view import StyledLine
    from heapdump.snapshot import Snapshot

_TWO = 2
_STACKS = 5
"""Groups whose stacks are shown below the table."""

_RELATIONS = {
    "same_process": "the same process: addresses can be compared",
    "same_program": "the same program in another run: groups are compared, addresses are not",
    "different_programs": "different programs: groups with equal keys are compared",
}


@dataclass(frozen=True, slots=True)
class _DiffOptions:
    """The options of the command as they are typed."""

    by: str | None
    heap: str | None
    size: str | None
    min_bytes: str
    focus: str | None
    ignore: str | None
    skip_module: tuple[str, ...]
    suppressions: Path | None
    unreachable: bool
    full_stacks: bool
    fail_on: tuple[str, ...]
    export: str | None


@option(
    "--group-by",
    "by",
    type=click.Choice([by.value for by in GroupKey]),
    help="What blocks of a group share.  [default: stack, or type where a dump records none]",
)
@option("--heap", metavar="ADDR|#N", help="Only this heap: its address in one of the dumps, or #N of the last one.")
@SIZE_OPTION
@option("--min-bytes", metavar="SIZE", default="0", help="Leave out groups that change less.")
@option("--focus", metavar="REGEX", help="Only stacks with a frame that matches.")
@option("--ignore", metavar="REGEX", help="No stacks with a frame that matches.")
@option("--skip-module", multiple=True, metavar="NAME", help="Skip frames of this allocator module (repeatable).")
@option(
    "--suppressions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Suppressions as in LeakSanitizer: leak:pattern.",
)
@option("--unreachable", is_flag=True, help="Also blocks that no pointer leads to; follows every pointer.")
@option("--full-stacks", is_flag=True, help="Show every frame, those of allocators too.")
@option(
    "--fail-on",
    multiple=True,
    metavar="WHAT=SIZE",
    help="Exit 1 where growth (all busy bytes), group (one group) or private (memory) grew by more (repeatable).",
)
@option(
    "--export",
    type=click.Choice(EXPORTS),
    help="Write the changes of all stacks in this format instead: a UMDH log, pprof with base, a flame graph.",
)
@dump_command("diff", takes_dumps=True)
def command(request: Request, dumps: tuple[Path, ...], **values: Any) -> int:
    """What changed between two dumps, or grows over several.

    Blocks are compared in groups, as leaks makes them: addresses are used again, stacks and types stay. Three dumps and
    more are put in the order of their times; each group then has a slope, a test and a shape.

    \b
    heapdump diff old.dmp new.dmp
    heapdump diff old.dmp new.dmp --group-by type --min-bytes 1M
    heapdump diff old.dmp new.dmp --fail-on growth=10M --fail-on group=1M
    heapdump diff monday.dmp tuesday.dmp wednesday.dmp thursday.dmp
    heapdump diff old.dmp new.dmp --export flame -o change.html
    heapdump diff crash.dmp later.dmp --json | jq '.data.groups[:5]'
    """
    options = _DiffOptions(**values)
    if len(dumps) < 2:
        raise WrongUsage("diff compares dumps; name two of them, the older first")
    limits = parse_limits(options.fail_on)
    check_options(options.export, options.by)
    with request.open_all(dumps) as opened:
        snapshots = _in_order(opened)
        asked, missing = _asked(snapshots, options)
        difference = compare_dumps(request, snapshots, asked)
        page = _DiffPage(request, snapshots, difference, asked, options.full_stacks, missing)
        if options.export:
            code = export_difference(request, snapshots, difference, options.export, page.gaps())
        else:
            code = request.emit(snapshots, page.answer())
        return EXIT_FINDINGS if _complain(request, difference, limits) else code


def _in_order(snapshots: list[Snapshot]) -> list[Snapshot]:
    """Three dumps or more in the order of their times, where all are known; two as they were named."""
    times = [one.dump.directory.header.timestamp for one in snapshots]
    if len(snapshots) == _TWO or not all(times):
        return snapshots
    return sorted(snapshots, key=lambda one: one.dump.directory.header.timestamp)


def _asked(snapshots: Sequence[Snapshot], options: _DiffOptions) -> tuple[Comparison, str]:
    """(the question of the comparison, why its key is not the one that was asked for, or "")."""
    from heapdump.analyses.allocated.leaks import how_to_record
    from heapdump.analyses.allocated.stacks import records_stacks

    bare = next((one for one in snapshots if not records_stacks(one.heaps)), None)
    by, missing = GroupKey(options.by) if options.by else GroupKey.STACK, ""
    if bare is not None and options.export:
        raise WrongUsage(f"--export {options.export}: {bare.dump.path.name}: {how_to_record(bare.process)}")
    if by.needs_stacks and bare is not None:
        missing = f"{bare.dump.path.name}: {how_to_record(bare.process)}" if options.by else ""
        by = GroupKey.TYPE
    comparison = Comparison(
        by,
        _heap(snapshots[-1], options.heap) if options.heap else None,
        text.parse_sizes(options.size) if options.size else None,
        regex("--focus", options.focus),
        regex("--ignore", options.ignore),
        options.skip_module,
        read_suppressions(options.suppressions),
        text.parse_size(options.min_bytes),
        options.unreachable,
    )
    return comparison, missing


def _heap(last: Snapshot, word: str) -> int:
    """The address of a heap, or that of heap `#N` or `N` of the last dump."""
    number = word.removeprefix("#")
    if number == word and not (number.isdecimal() and int(number) < len(last.heaps)):
        return text.parse_address(word)
    if not number.isdecimal() or int(number) >= len(last.heaps):
        raise WrongUsage(f"{last.dump.path.name} has no heap {word}; it has #0 to #{len(last.heaps) - 1}")
    return last.heaps[int(number)].address


def _complain(request: Request, difference: Difference, limits: Limits) -> bool:
    """Says which limits of --fail-on are exceeded; True where one is."""
    lines = exceeded(difference, limits)
    for line in lines:
        request.say(line)
    return bool(lines)


@dataclass(frozen=True)
class _DiffPage:
    """A comparison and how it is shown. `missing`: why groups have another key than asked for, or ""."""

    request: Request
    snapshots: list[Snapshot]
    difference: Difference
    asked: Comparison
    full_stacks: bool
    missing: str

    @property
    def _paths(self) -> list[str]:
        return [str(one.dump.path) for one in self.snapshots]

    def answer(self) -> Answer:
        """The answer of the command."""
        from heapdump.commands.common.diff_records import difference_record, group_record

        groups = self._groups()
        return Answer(
            "diff",
            data=lambda: difference_record(self.difference, groups, self._paths, [one.text for one in self._sentences]),
            records=lambda: map(group_record, groups),
            page=lambda: self._page(groups),
            gaps=self.gaps(),
            notes=self._notes(),
        )

    def gaps(self) -> tuple[str, ...]:
        """A line for each reason why something is missing, with the dump it is about."""
        dumps = zip(self._paths, self.difference.dumps, strict=True)
        gaps = [f"{Path(path).name}: {gap}" for path, facts in dumps for gap in facts.gaps]
        if self.missing:
            gaps.append(f"{self.missing}; grouped by {self.asked.by} instead")
        return tuple(gaps)

    @cached_property
    def _sentences(self) -> list[DiffSentence]:
        """The differences that matter most."""
        from heapdump.commands.common.diff_sentences import sentences

        holder = partial(holder_of, self.request, self.snapshots[-1], follow=self.asked.unreachable)
        return sentences(self.difference, self._paths[-1], holder)

    def _groups(self) -> list[ComparedGroup]:
        """The groups that are listed: those that changed, with --all every one."""
        from heapdump.commands.common.diff_records import group_record

        groups = self.difference.groups
        listed = groups if self.request.limit is None else [group for group in groups if group.has_changed]
        return self.request.rows(listed, group_record)

    def _notes(self) -> tuple[str, ...]:
        times = [facts.time for facts in self.difference.dumps if facts.time is not None]
        late = times != sorted(times)
        return ("the dumps are not named in the order of their times",) if late else ()

    def _page(self, groups: list[ComparedGroup]) -> Iterator[PageItem]:
        from heapdump.commands.common import diff_tables as tables

        difference, request = self.difference, self.request
        yield Lines(list(self._header()))
        yield Lines([_bullet(sentence.text, sentence.command) for sentence in self._sentences])
        shown, hidden = request.shown(groups)
        numbered = any(group.frames for group in shown)
        yield Table(self._columns(), shown, hidden=hidden, empty="no group of blocks changed", numbered=numbered)
        yield Lines([[(self._reconciled(), "bold")]])
        yield from self._stacks(shown)
        heaps = [heap for heap in difference.heaps if request.limit is None or len(set(heap.values)) > 1]
        if heaps:
            shown_heaps, hidden = request.shown(heaps)
            yield Table(tables.HEAPS, shown_heaps, hidden=hidden)
        large = [row for row in difference.large_blocks if request.limit is None or row.delta_bytes]
        if large:
            shown_large, hidden = request.shown(large)
            yield Table(tables.LARGE_BLOCKS, shown_large, hidden=hidden)
        if difference.modules:
            shown_modules, hidden = request.shown(difference.modules)
            yield Table(tables.MODULES, shown_modules, hidden=hidden)
        for title, rows, are_bytes in (
            ("Committed memory is", difference.items, True),
            ("Usage", difference.usage, True),
            ("Address space", difference.address_space, False),
            ("Process", difference.counters, False),
        ):
            table = tables.rows_table(title, self._changed(rows), are_bytes=are_bytes)
            if table.rows:
                yield table
        unchanged = [words for rows in (difference.items, difference.counters) for words in self._unchanged(rows)]
        if unchanged:
            yield Lines([[(f"unchanged: {', '.join(unchanged)}", "dim")]])

    def _columns(self) -> tuple[Column[ComparedGroup], ...]:
        """Of groups in two dumps, or in more."""
        from heapdump.commands.common import diff_tables as tables

        trend = next((group.trend for group in self.difference.groups if group.trend), None)
        return tables.trend_columns(is_per_hour=trend.bytes.is_per_hour) if trend else tables.GROUPS

    def _changed(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are shown: those that changed, with --all every one."""
        return [row for row in rows if self.request.limit is None or len(set(row.values)) > 1]

    def _unchanged(self, rows: Sequence[Row]) -> Iterator[str]:
        """Words for the rows that are not shown because every dump has the same number."""
        from heapdump.commands.common.diff_tables import COUNTER_WORDS

        for row in rows:
            if row not in self._changed(rows) and row.values[0] is not None:
                yield COUNTER_WORDS.get(row.name, row.name)

    def _header(self) -> Iterator[StyledLine]:
        """The dumps, and what they have in common."""
        names = ["old", "new"] if len(self.snapshots) == 2 else [f"#{i}" for i in range(1, len(self.snapshots) + 1)]
        first = self.difference.dumps[0].time
        for name, path, facts in zip(names, self._paths, self.difference.dumps, strict=True):
            pid = "unknown" if facts.process.pid is None else str(facts.process.pid)
            when = _when(facts.time, first)
            yield [(f"{name}  ", "bold"), (f"{path}  pid {pid}{when}", "")]
        found = self.difference.comparability
        equal = ", ".join(witness.words for witness in found.equal) or "nothing"
        contrary = ", ".join(witness.words for witness in found.different)
        against = f"; different: {contrary}" if contrary else ""
        yield [(_RELATIONS[found.relation.value], "bold"), (f" (equal: {equal}{against})", "dim")]

    def _reconciled(self) -> str:
        found = self.difference.reconciliation
        from heapdump.commands.common.diff_tables import signed_count

        omitted = f", and {signed_count(found.omitted_delta)} that filters leave out" if found.omitted_delta else ""
        return (
            f"all groups, by {self.asked.by}: {signed_count(found.groups_delta)} bytes{omitted} = busy blocks of all "
            f"heaps: {signed_count(found.busy_delta)} bytes"
        )

    def _stacks(self, shown: Sequence[ComparedGroup]) -> Iterator[Lines]:
        """The stacks of the groups that are shown, numbered from 1."""
        from heapdump.analyses.allocated.stack_keys import passes_on
        from heapdump.commands.common.diff_tables import signed_count
        from heapdump.commands.common.leak_groups import folded_frames

        folds = None if self.full_stacks else passes_on(self.asked.skip)
        if self.asked.by is not GroupKey.STACK:
            return
        for number, group in enumerate(shown[:_STACKS], 1):
            if group.frames:
                samples = " ".join(map(hex, group.sample[:3]))
                word = "block" if abs(group.delta_count) == 1 else "blocks"
                blocks = f"  {signed_count(group.delta_bytes)} bytes, {signed_count(group.delta_count)} {word}"
                head = [(f"#{number}", "bold"), (f"{blocks}, such as {samples}", "")]
                yield Lines([head, *folded_frames(group.frames, folds)])


def _bullet(sentence: str, command: tuple[str, ...]) -> StyledLine:
    words = " ".join(f'"{word}"' if " " in word else word for word in command)
    return [(f"• {sentence}", ""), *([(f" → heapdump {words}", COMMAND)] if command else [])]


def _when(time: int | None, first: int | None) -> str:
    """`  2024-01-25 16:19:21 UTC (+3 h)`; "" for an unknown time."""
    if time is None:
        return ""
    when = f"  {datetime.datetime.fromtimestamp(time, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    return when if first is None or time == first else f"{when} ({_duration(time - first)})"


def _duration(seconds: int) -> str:
    """`+2 d 3 h`, `-5 min`."""
    left, shown = abs(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size:
            shown.append(f"{left // size} {unit}")
        left %= size
    return f"{'-' if seconds < 0 else '+'}{' '.join(shown[:2]) or '0 s'}"
