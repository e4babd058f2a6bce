"""`leaks --unreachable`: its options, and the way from a question to the report."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.graph_overview import leak_context
from heapdump.commands.common.leak_groups import suppression_gaps
from heapdump.commands.common.options import option
from heapdump.errors import WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable

    from heapdump.analyses.graph.pointer_graph import PointerGraph
    from heapdump.analyses.graph.unreachable import Reachability
    from heapdump.analyses.graph.unreachable_report import UnreachableBlocks, UnreachableQuestion, UnreachableReport
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

_LSAN_EXIT = 23
_OPTIONS = (
    option("--max-leaks", type=click.IntRange(0), default=0, metavar="N", hidden=True, help="As --limit, of the records too; 0 = all."),
    option("--report-objects", is_flag=True, help="With --unreachable: the address of every block."),
    option("--use-unaligned", is_flag=True, help="With --unreachable: pointers may begin at any byte."),
    option("--print-suppressions/--no-print-suppressions", default=True, help="With --lsan-compat: what was suppressed.  [default: on]"),
    option("--exitcode", type=click.IntRange(0, 255), metavar="N", help="With --unreachable: exit with N when blocks are leaked.  [default: as always; 23 with --lsan-compat]"),
    option("--lsan-compat", is_flag=True, help="With --unreachable: LeakSanitizer's own report and cycle rules."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class UnreachableOptions:
    """The options of --unreachable, with their defaults. `exitcode`: exit code where blocks are leaked; None: the usual one."""

    max_leaks: int = 0
    report_objects: bool = False
    use_unaligned: bool = False
    print_suppressions: bool = True
    exitcode: int | None = None
    lsan_compat: bool = False

    @property
    def leak_exit_code(self) -> int | None:
        """The exit code where blocks are leaked; None: the usual one."""
        return _LSAN_EXIT if self.lsan_compat and self.exitcode is None else self.exitcode


def unreachable_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of --unreachable to a command."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


def take_options(values: dict[str, Any], *, unreachable: bool, export: str | None) -> UnreachableOptions | None:
    """Takes the options of --unreachable out of all options; None without --unreachable.

    Raises:
        WrongUsage: options that go with --unreachable only, or do not go with it.
    """
    options = UnreachableOptions(**{field.name: values.pop(field.name) for field in fields(UnreachableOptions)})
    if not unreachable:
        if options != UnreachableOptions():
            raise WrongUsage(
                "--max-leaks, --report-objects, --use-unaligned, --exitcode, --lsan-compat and "
                "--no-print-suppressions go with --unreachable"
            )
        return None
    if export:
        raise WrongUsage("--export writes the stacks of all busy blocks, it does not go with --unreachable")
    return options


def emit_unreachable(
    request: Request,
    snapshot: Snapshot,
    question: UnreachableQuestion,
    options: UnreachableOptions,
    *,
    full_stacks: bool,
) -> int:
    """Finds the blocks and writes the report; the exit code. `full_stacks`: with the frames of allocator modules."""
    from heapdump.analyses.graph.unreachable import classify
    from heapdump.analyses.graph.unreachable_report import find_unreachable

    @cache
    def graph() -> PointerGraph:
        """The pointer graph."""
        return snapshot.sweep(unaligned=True) if options.use_unaligned else snapshot.graph

    @cache
    def reached() -> Reachability:
        """How its blocks are reached."""
        return classify(graph()) if options.use_unaligned else snapshot.reached

    def stored(make: Callable[[], UnreachableReport]) -> UnreachableReport:
        """From the index, where the answer depends on nothing else; else made now."""
        if options.use_unaligned or not question.is_plain:
            return make()
        has_own_names = not (request.image_path or request.symbol_path)
        by = question.grouping.by
        return snapshot.groups.unreachable_report(by, make, has_own_names=has_own_names, shapes=context.shapes)

    context = leak_context(request, snapshot)
    found = find_unreachable(context, graph, reached, question, stored)
    gaps = (*walk_gaps(snapshot), *found.report.evidence, *suppression_gaps(snapshot, question.suppressions))
    if options.lsan_compat:
        code = _write_lsan(request, snapshot, found, options, gaps)
    else:
        from heapdump.analyses.graph.managed_holders import managed_holders
        from heapdump.commands.common.unreachable_page import UnreachablePage

        heaps = [runtime.heap for runtime in snapshot.runtimes if runtime.heap is not None]
        managed = managed_holders(snapshot.process.space, graph(), reached(), heaps) if heaps else None
        code = request.emit(
            snapshot, UnreachablePage(request, snapshot, found, options, question, full_stacks, managed).answer(gaps)
        )
    is_leaked = found.leaked.blocks > 0
    return options.leak_exit_code if options.leak_exit_code is not None and is_leaked else code


def _typed_limit(request: Request) -> int:
    """The number of groups that --limit asks for; 0 where it was not typed: the report has all groups."""
    is_typed = click.get_current_context().get_parameter_source("limit") is ParameterSource.COMMANDLINE
    return (request.limit or 0) if is_typed else 0


def _write_lsan(
    request: Request, snapshot: Snapshot, found: UnreachableBlocks, options: UnreachableOptions, gaps: tuple[str, ...]
) -> int:
    from heapdump.commands.common.lsan import lsan_report
    from heapdump.render.lsan import lsan

    lines = lsan(
        lsan_report(snapshot, found),
        options.max_leaks or _typed_limit(request),
        with_objects=options.report_objects,
        with_suppressions=options.print_suppressions,
    )
    return request.write(snapshot, lines, gaps)
