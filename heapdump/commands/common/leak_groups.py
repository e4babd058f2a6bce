"""Groups of busy blocks as columns, records, stacks and notes, for `leaks` with and without --unreachable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.frames import frame_record
from heapdump.render import text
from heapdump.render.view import Column, Lines, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from heapdump.analyses.allocated.leaks import LeakGroup
    from heapdump.analyses.allocated.suppressions import Rule, RuleCount, Suppressions
    from heapdump.process.symbols.namer import Frame
    from heapdump.snapshot import Snapshot

_SHOWN_FRAMES = 8


def _sizes(found: LeakGroup) -> str:
    low, high = found.group.min_size, found.group.max_size
    return text.count(low) if low == high else f"{low:,}..{high:,}"


COLUMNS: tuple[Column[LeakGroup], ...] = (
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


def group_record(snapshot: Snapshot, found: LeakGroup) -> Record:
    """The JSON record of a group (interface.md)."""
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
        **({"fingerprint": found.identity} if found.identity not in ("", found.key) else {}),
    }


def stack_lines(
    snapshot: Snapshot, shown: Sequence[LeakGroup], folds: Callable[[Frame], bool] | None
) -> Iterator[Lines]:
    """The stacks of groups, numbered from 1. Frames for which `folds` is true are left out; None: all frames."""
    for number, found in enumerate(shown, 1):
        if found.frames:
            yield Lines(_stack(snapshot, number, found, folds))


def _stack(
    snapshot: Snapshot, number: int, found: LeakGroup, folds: Callable[[Frame], bool] | None
) -> list[list[tuple[str, str]]]:
    """A line with the number, the blocks and some addresses, and a line for each frame."""
    table, group = snapshot.walk.table, found.group
    samples = " ".join(hex(table.block(row).address) for row in group.sample[:3])
    blocks = f"  {text.count(group.bytes)} bytes in {text.plural(group.count, 'block')}, such as {samples}"
    return [[(f"#{number}", "bold"), (blocks, "")], *folded_frames(found.frames, folds)]


def folded_frames(stack: Sequence[Frame], folds: Callable[[Frame], bool] | None) -> list[list[tuple[str, str]]]:
    """A line for each frame of a stack; those for which `folds` is true are left out and counted. None: all frames."""
    frames = stack
    if folds is not None:
        frames = [frame for frame in stack if not folds(frame)][:_SHOWN_FRAMES] or stack
    hidden = len(stack) - len(frames)
    lines = [[(f"    {frame}", "")] for frame in frames]
    return [*lines, [(f"    … {hidden} more (--full-stacks)", "dim")]] if hidden else lines


def suppressed_lines(suppressed: Sequence[RuleCount]) -> Iterator[Lines]:
    """A line for each rule with the blocks that it suppresses."""
    for used in suppressed:
        amount = f"{text.plural(used.count, 'block')} with {text.size(used.bytes)}"
        yield Lines([[(f"suppressed by {used.rule.text}: {amount}", "dim")]])


def unused_lines(unused: Sequence[Rule]) -> Iterator[Lines]:
    """A line for each rule that matches no stack."""
    for rule in unused:
        yield Lines([[(f"suppression {rule.text} matched nothing", "dim")]])


def unused_notes(unused: Sequence[Rule]) -> tuple[str, ...]:
    """Likewise, as notes."""
    return tuple(f"suppression {rule.text!r} matched nothing" for rule in unused)


def suppression_gaps(snapshot: Snapshot, suppressions: Suppressions) -> tuple[str, ...]:
    """Why suppressions are not applied; nothing where they are, or there are none."""
    if not suppressions.rules or snapshot.stacks.are_recorded:
        return ()
    return ("suppressions match allocation stacks, and none are recorded in this dump: nothing was suppressed",)
