"""`leaks`: busy blocks by who allocated them, or by what they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.commands.common.addresses import heap_in
from heapdump.commands.common.export import EXPORTS, check_options, export_stacks
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.graph_overview import default_key, leak_context
from heapdump.commands.common.group_options import read_suppressions, regex
from heapdump.commands.common.leak_groups import (
    group_columns,
    group_record,
    sort_record,
    stack_lines,
    suppressed_lines,
    suppression_gaps,
    unused_lines,
    unused_notes,
)
from heapdump.commands.common.lsan_options import with_lsan_options
from heapdump.commands.common.options import HEAP_OPTION, SIZE_OPTION, option
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.types import shapes_for
from heapdump.commands.common.unreachable import emit_unreachable, take_options, unreachable_options
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.allocated.leaks import LeakGroup, LeakQuestion, Leaks
    from heapdump.analyses.allocated.suppressions import Suppressions
    from heapdump.snapshot import Snapshot

_GUESSED = (
    "classes are those of type information or exports; all other keys say what the first bytes look like: guesses"
)
_DECLARED = (
    "types are those of type information, or follow from what PDBs declare of pointers, where sizes fit; all other "
    "keys say what the first bytes look like: guesses"
)


@dataclass(frozen=True, slots=True)
class _LeaksOptions:
    """The options of the command as they are typed, those of --unreachable left out."""

    by: str | None
    heap: str | None
    size: str | None
    min_bytes: str
    focus: str | None
    ignore: str | None
    skip_module: tuple[str, ...]
    full_stacks: bool
    export: str | None
    weight: str
    suppressions: Path | None
    unreachable: bool

    @property
    def is_filtered(self) -> bool:
        """True where only some busy blocks are asked about."""
        return self.heap is not None or self.size is not None


@option(
    "--group-by",
    "by",
    type=click.Choice([by.value for by in GroupKey]),
    help="What blocks of a group share.  [default: stack, or type where none is recorded]",
)
@HEAP_OPTION
@SIZE_OPTION
@option("--min-bytes", metavar="SIZE", default="0", help="Leave out smaller groups.")
@option("--focus", metavar="REGEX", help="Only stacks with a frame that matches.")
@option("--ignore", metavar="REGEX", help="No stacks with a frame that matches.")
@option("--skip-module", multiple=True, metavar="NAME", help="Skip frames of this allocator module (repeatable).")
@option("--full-stacks", is_flag=True, help="Show every frame, those of allocators too.")
@option("--export", type=click.Choice(EXPORTS), help="Write the stacks in this format instead, to -o FILE or stdout.")
@option(
    "--weight",
    type=click.Choice(["bytes", "blocks"]),
    default="bytes",
    show_default=True,
    help="What folded lines count.",
)
@option(
    "--suppressions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Suppressions as in LeakSanitizer: leak:pattern.",
)
@option(
    "--unreachable", is_flag=True, help="Only blocks that the program can no longer reach, as LeakSanitizer finds them."
)
@unreachable_options
@dump_command("leaks", takes_expressions=True)
def command(request: Request, **values: Any) -> int:
    """Who allocated busy memory, by stack, DLL or type; leaks.

    Every busy block counts, as in UMDH, not only leaked ones; groups with most bytes come first. Stacks are recorded
    when the program ran under gflags +ust or page heap. With --unreachable only blocks count that nothing points to any
    more.

    \b
    heapdump leaks crash.dmp --group-by stack
    heapdump leaks crash.dmp --group-by caller --skip-module mymalloc
    heapdump leaks crash.dmp --group-by type --heap 0x29fb0000
    heapdump leaks crash.dmp --group-by source        file and line (debug builds)
    heapdump leaks crash.dmp --unreachable --report-objects
    heapdump leaks crash.dmp --export flame -o flame.html
    heapdump leaks crash.dmp --export pprof -o heap.pb.gz
    """
    from heapdump.kernels.ahead import OF_REACH, OF_TREE, OF_TYPES, foresee

    check_options(values["export"], values["by"])
    if values["unreachable"] and values["lsan_compat"]:
        values = with_lsan_options(values, request.say)
    unreachable = take_options(values, unreachable=values["unreachable"], export=values["export"])
    options = _LeaksOptions(**values)
    if unreachable is not None and unreachable.lsan_compat and request.format != "table":
        raise WrongUsage("--lsan-compat is a text of its own, it does not go with --json and --format")
    suppressions = read_suppressions(options.suppressions)
    is_by_graph = values["by"] in (GroupKey.OWNER, GroupKey.OWNER_MODULE, GroupKey.STRUCTURE)
    foresee(OF_REACH if unreachable is not None else OF_TREE if is_by_graph else OF_TYPES)
    with request.open() as snapshot:
        question = _question(request, snapshot, options)
        if unreachable is not None:
            from heapdump.analyses.graph.unreachable_report import UnreachableQuestion

            asked = UnreachableQuestion(question, suppressions, unreachable.lsan_compat)
            return emit_unreachable(request, snapshot, asked, unreachable, full_stacks=options.full_stacks)
        from heapdump.analyses.allocated.leaks import find_leaks

        leaks = find_leaks(leak_context(request, snapshot), question, suppressions)
        if options.export:
            return export_stacks(request, snapshot, leaks, options.export, by_blocks=options.weight == "blocks")
        page = _LeaksPage(request, snapshot, leaks, question, options.full_stacks)
        return request.emit(snapshot, page.answer(suppressions))


def _question(request: Request, snapshot: Snapshot, options: _LeaksOptions) -> LeakQuestion:
    from heapdump.analyses.allocated.leaks import LeakQuestion
    from heapdump.analyses.blocks.select import Filter, select

    span = text.parse_sizes(options.size) if options.size else None
    wanted = Filter(heap=heap_in(request, snapshot, options.heap), size=span)
    rows = select(snapshot.walk.table, snapshot.heaps, wanted) if options.is_filtered else None
    return LeakQuestion(
        GroupKey.STACK if options.export else GroupKey(options.by) if options.by else default_key(snapshot),
        rows,
        text.parse_size(options.min_bytes),
        regex("--focus", options.focus),
        regex("--ignore", options.ignore),
        options.skip_module,
    )


@dataclass(frozen=True)
class _LeaksPage:
    """Groups and how they are shown. `full_stacks`: with the frames of allocator modules."""

    request: Request
    snapshot: Snapshot
    leaks: Leaks
    question: LeakQuestion
    full_stacks: bool

    def answer(self, suppressions: Suppressions) -> Answer:
        """The answer of the command."""
        leaks = self.leaks
        missing = (f"{leaks.missing}; grouped by {leaks.by} instead",) if leaks.missing else ()
        return Answer(
            "leaks",
            data=self._records,
            records=self._records,
            page=self._page,
            gaps=(*walk_gaps(self.snapshot), *missing, *suppression_gaps(self.snapshot, suppressions)),
            notes=unused_notes(leaks.unused),
        )

    def _records(self) -> Iterator[Record]:
        return (group_record(self.snapshot, found) for found in self._groups)

    @cached_property
    def _groups(self) -> Sequence[LeakGroup]:
        if self.request.sort is None and not self.request.reverse:
            return self.leaks.groups
        return self.request.rows(self.leaks.groups, sort_record)

    @property
    def _omitted(self) -> str:
        """The busy blocks of the program that options leave out."""
        from heapdump.analyses.blocks.select import Filter, select

        leaks = self.leaks
        blocks, size = leaks.omitted_blocks, leaks.omitted_bytes
        if not self.question.is_about_all:
            table = self.snapshot.walk.table
            unfiltered = select(table, self.snapshot.heaps, Filter())
            blocks, size = len(unfiltered) - leaks.blocks, int(table.sizes(unfiltered).sum()) - leaks.bytes
        return f"; left out by options: {text.plural(blocks, 'block')}, {text.size(size)}" if blocks else ""

    def _page(self) -> Iterator[PageItem]:
        from heapdump.analyses.allocated.stack_keys import passes_on

        leaks = self.leaks
        if leaks.groups or leaks.omitted_blocks:
            yield Lines([[(_total(leaks), "bold"), (_concentration(leaks), ""), (self._omitted, "dim")]])
        shown, hidden = self.request.shown(self._groups)
        empty = "no matching busy blocks" if self._omitted else "no busy blocks are known"
        yield Table(
            group_columns(shown, leaks.by, self.snapshot.heaps), shown, hidden=hidden, empty=empty,
            numbered=leaks.by is GroupKey.STACK,
        )  # fmt: skip
        if leaks.by in (GroupKey.TYPE, GroupKey.CONTENT, GroupKey.STRUCTURE) and leaks.groups:
            has_pdb = self.leaks.by is not GroupKey.CONTENT and shapes_for(self.request, self.snapshot) is not None
            yield Lines([[(_DECLARED if has_pdb else _GUESSED, "dim")]])
        if leaks.by is GroupKey.STACK:
            yield from stack_lines(shown, None if self.full_stacks else passes_on(self.question.skip))
        yield from unused_lines(leaks.unused)
        yield from suppressed_lines(leaks.suppressed)


def _total(leaks: Leaks) -> str:
    blocks = f"{text.plural(leaks.blocks, 'busy block')} with {text.size(leaks.bytes)}"
    return f"{blocks} in {text.plural(len(leaks.groups), 'group')}, by {leaks.by}"


def _concentration(leaks: Leaks) -> str:
    """How much the largest groups hold; "" where none stands out, or there is no other."""
    from heapdump.analyses.allocated.top_groups import top_groups

    top = top_groups(leaks.groups)
    if not top or len(leaks.groups) == 1:
        return ""
    held = text.share(sum(found.group.share for found in top))
    return f"; the first holds {held}" if len(top) == 1 else f"; the first {len(top)} hold {held}"
