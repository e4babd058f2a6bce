"""`leaks`: busy blocks by who allocated them, or by what they are."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from heapdump.commands.common.block_rows import frame_record, walk_gaps
from heapdump.commands.common.export import EXPORTS, check_options, export_stacks
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.unreachable import Asked, emit_lost, lost_options, read_options, unmatched
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, Record, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from heapdump.analyses.allocated.leaks import By, LeakGroup, Leaks, Question
    from heapdump.analyses.allocated.suppressions import Suppressions
    from heapdump.process.symbols.namer import Frame
    from heapdump.snapshot import Snapshot

KEYS = ["stack", "caller", "module", "size", "heap", "type", "content", "source"]
_SHOWN_FRAMES = 8
_GUESSED = "class names are those of type information; all other keys say what the first bytes look like: guesses"


def _sizes(found: LeakGroup) -> str:
    low, high = found.group.min_size, found.group.max_size
    return text.count(low) if low == high else f"{low:,}..{high:,}"


VIEW: tuple[Column[LeakGroup], ...] = (
    Column("Bytes", lambda g: text.count(g.group.bytes), "requested bytes of the group's busy blocks", right=True),
    Column("", lambda g: text.size(g.group.bytes), "the same in units of 1024", right=True, rank=1),
    Column("Share", lambda g: text.share(g.group.share), "of the bytes of all blocks asked about", right=True),
    Column("Blocks", lambda g: text.count(g.group.count), "busy blocks", right=True),
    Column("Sizes", _sizes, "smallest and largest requested size", right=True, rank=2),
    Column(
        "Key",
        lambda g: g.key,
        "what the blocks have in common; of a stack the first frames outside allocator modules",
        flexible=24,
    ),
)


@click.option(
    "--group-by",
    "by",
    type=click.Choice(KEYS),
    help="What blocks are put together by.  [default: stack, or type where none is recorded]",
)
@click.option("--heap", metavar="ADDR", help="Only this heap.")
@click.option("--size", metavar="A..B", help="Only requested sizes from A up to B inclusive; one number: exactly that.")
@click.option("--min-bytes", metavar="SIZE", default="0", help="Leave out smaller groups.")
@click.option("--focus", metavar="REGEX", help="Only stacks with a frame that matches.")
@click.option("--ignore", metavar="REGEX", help="No stacks with a frame that matches.")
@click.option(
    "--skip-module", multiple=True, metavar="NAME", help="This module only passes allocations on (repeatable)."
)
@click.option("--full-stacks", is_flag=True, help="All frames, those of allocator modules too.")
@click.option(
    "--export", type=click.Choice(EXPORTS), help="Write the stacks in this format instead, to -o FILE or stdout."
)
@click.option(
    "--weight",
    type=click.Choice(["bytes", "blocks"]),
    default="bytes",
    show_default=True,
    help="What folded lines count.",
)
@click.option(
    "--suppressions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="LeakSanitizer's rules: leak:pattern.",
)
@click.option(
    "--unreachable", is_flag=True, help="Only blocks that the program can no longer reach, as LeakSanitizer finds them."
)
@lost_options
@dump_command("leaks")
def command(
    request: Request, by: str | None, heap: str | None, size: str | None, min_bytes: str, focus: str | None,
    ignore: str | None, skip_module: tuple[str, ...], full_stacks: bool, export: str | None, weight: str,
    suppressions: Path | None, unreachable: bool, **lost: Any,
) -> int:  # fmt: skip
    """Who allocated the memory that is busy, or what it is.

    Every busy block counts, as in UMDH; groups with most bytes come first. Stacks are recorded when the program ran
    under gflags +ust or page heap. With --unreachable only blocks count that nothing points to any more.

    \b
    heapdump leaks crash.dmp --group-by stack
    heapdump leaks crash.dmp --group-by caller --skip-module mymalloc --min-bytes 1M
    heapdump leaks crash.dmp --group-by type --heap 0x29fb0000
    heapdump leaks crash.dmp --group-by source               file and line, of debug builds
    heapdump leaks crash.dmp --unreachable --report-objects
    heapdump leaks crash.dmp --export flame -o flame.html
    heapdump leaks crash.dmp --export pprof -o heap.pb.gz     for go tool pprof
    """
    import numpy as np

    from heapdump.analyses.allocated.leaks import Question, find_leaks
    from heapdump.analyses.blocks.select import Filter, select

    request.refuse_sorting("leaks")
    check_options(export, by)
    options = read_options(unreachable=unreachable, export=export, **lost)
    if options is not None and options.as_lsan and request.format != "table":
        raise WrongUsage("--lsan-compat is a text of its own, it does not go with --json and --format")
    rules = _suppressions(suppressions)
    with request.open() as snapshot:
        span = text.parse_span(size, text.parse_size, 1) if size else None
        wanted = Filter(heap=text.parse_address(heap) if heap else None, size=span)
        filtered = heap is not None or size is not None
        rows = (
            np.empty(0, np.int64)
            if unreachable and not filtered
            else select(snapshot.walk.table, snapshot.heaps, wanted)
        )
        key = "stack" if export else by or ("stack" if snapshot.stacks.are_recorded else "type")
        question = Question(
            cast("By", key),
            rows,
            text.parse_size(min_bytes),
            _regex("--focus", focus),
            _regex("--ignore", ignore),
            skip_module,
        )
        namer = partial(snapshot.namer, request.image_path, request.symbol_path)

        def found(question: Question, rules: Suppressions) -> Leaks:
            """The groups of some blocks."""
            return find_leaks(
                snapshot.process,
                snapshot.heaps,
                snapshot.walk.table,
                snapshot.stacks,
                namer,
                question,
                rules,
                snapshot.crt.blocks,
            )

        if options is not None:
            return emit_lost(
                request,
                snapshot,
                Asked(question, filtered, rules, found, lambda one: _record(snapshot, one), full_stacks),
                options,
            )
        leaks = found(question, rules)
        if export:
            return export_stacks(request, snapshot, leaks, export, by_blocks=weight == "blocks")
        return request.emit(snapshot, _answer(request, snapshot, leaks, question, rules, full_stacks=full_stacks))


def _answer(
    request: Request, snapshot: Snapshot, leaks: Leaks, question: Question, rules: Suppressions, *, full_stacks: bool
) -> Answer:
    def records() -> Iterator[Record]:
        """The JSON records, made as they are read."""
        return (_record(snapshot, found) for found in leaks.groups)

    notes = [f"suppression {rule.text!r} matched nothing" for rule in leaks.unused]
    missing = (f"{leaks.missing}; grouped by {leaks.by} instead",) if leaks.missing else ()
    return Answer(
        "leaks",
        data=records,
        records=records,
        parts=lambda: _parts(request, snapshot, leaks, question, full_stacks=full_stacks),
        gaps=(*walk_gaps(snapshot), *missing, *unmatched(snapshot, rules)),
        notes=tuple(notes),
    )


def _record(snapshot: Snapshot, found: LeakGroup) -> Record:
    group, table = found.group, snapshot.walk.table
    return {
        "key": found.key,
        "count": group.count,
        "bytes": group.bytes,
        "min_size": group.min_size,
        "max_size": group.max_size,
        "share": group.share,
        "heaps": [hex(snapshot.heaps[heap].address) for heap in group.heaps],
        "frames": [frame_record(frame) for frame in found.frames],
        "sample": [hex(table.block(row).address) for row in group.sample],
        "trust": found.trust.value,
    }


def _parts(
    request: Request, snapshot: Snapshot, leaks: Leaks, question: Question, *, full_stacks: bool
) -> Iterator[Table[Any] | Lines]:
    from heapdump.analyses.allocated.top_groups import suspects

    if sentences := suspects(leaks, snapshot.heaps):
        yield Lines([[("• ", ""), (sentence, "")] for sentence in sentences])
    shown, hidden = request.shown(leaks.groups)
    yield Table(VIEW, shown, hidden=hidden, empty="no busy block like that")
    if leaks.groups:
        total = f"{text.plural(leaks.blocks, 'busy block')} with {text.size(leaks.bytes)} in {text.plural(len(leaks.groups), 'group')}, by {leaks.by}"
        left = f"; left out: {text.plural(leaks.left_blocks, 'block')} with {text.size(leaks.left_bytes)} in smaller or suppressed groups"
        yield Lines([[(total, ""), (left if leaks.left_blocks else "", "dim")]])
    if leaks.by in ("type", "content") and leaks.groups:
        yield Lines([[(_GUESSED, "dim")]])
    if leaks.by == "stack":
        yield from stacks(snapshot, shown, question, full_stacks=full_stacks)
    for rule in leaks.unused:
        yield Lines([[(f"suppression {rule.text} matched nothing", "dim")]])
    for rule in leaks.suppressed:
        yield Lines(
            [[(f"suppressed by {rule.text}: {text.plural(rule.count, 'block')} with {text.size(rule.bytes)}", "dim")]]
        )


def stacks(snapshot: Snapshot, shown: Sequence[LeakGroup], question: Question, *, full_stacks: bool) -> Iterator[Lines]:
    """The stacks of groups, numbered as the groups are; without `full_stacks` without the frames that only pass on."""
    from heapdump.analyses.allocated.leaks import passes_on

    folds = passes_on(question.skip) if not full_stacks else None
    for number, found in enumerate(shown, 1):
        if found.frames:
            yield Lines(_stack(snapshot, number, found, folds))


def _stack(
    snapshot: Snapshot, number: int, found: LeakGroup, folds: Callable[[Frame], bool] | None
) -> list[list[tuple[str, str]]]:
    """The group's stack without the frames that only pass on, and some addresses."""
    table = snapshot.walk.table
    samples = " ".join(hex(table.block(row).address) for row in found.group.sample[:3])
    frames: Sequence[Frame] = found.frames
    if folds is not None:
        frames = [frame for frame in frames if not folds(frame)][:_SHOWN_FRAMES] or frames
    left = len(found.frames) - len(frames)
    lines = [
        [
            (f"#{number}", "bold"),
            (
                f"  {text.count(found.group.bytes)} bytes in {text.plural(found.group.count, 'block')}, such as {samples}",
                "",
            ),
        ]
    ]
    lines += [[(f"    {frame}", "")] for frame in frames]
    return [*lines, [(f"    … {left} more (--full-stacks)", "dim")]] if left else lines


def _regex(option: str, pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise WrongUsage(f"{option} {pattern!r} is no regular expression: {error}") from error


def _suppressions(path: Path | None) -> Suppressions:
    from heapdump.analyses.allocated.suppressions import Suppressions, parse

    if path is None:
        return Suppressions()
    data = path.read_bytes()
    encoding = (
        "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    )  # as Notepad and PowerShell write them
    return parse(data.decode(encoding, errors="replace").splitlines())
