"""Groups of busy blocks as columns, records, stacks and notes, for `leaks` with and without --unreachable."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from heapdump.commands.common.frames import frame_record
from heapdump.render import text
from heapdump.render.view import Column, Lines, Record, size_column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from heapdump.analyses.allocated.group_key import GroupKey
    from heapdump.analyses.allocated.leaks import LeakGroup
    from heapdump.analyses.allocated.suppressions import Rule, RuleCount, Suppressions
    from heapdump.blocks.heap import Heap
    from heapdump.process.symbols.namer import Frame
    from heapdump.snapshot import Snapshot

_SHOWN_FRAMES = 8
_SHOWN_STACKS = 5
_LEAST_SHARE = 0.01
"""Groups whose stacks are printed: the first ones, and those that hold at least this share of the bytes."""


def _sizes(found: LeakGroup) -> str:
    low, high = found.group.min_size, found.group.max_size
    return text.count(low) if low == high else f"{low:,}..{high:,}"


def _heap(heaps: Sequence[Heap], found: LeakGroup) -> str:
    indices = found.group.heaps
    return f"{heaps[indices[0]].address:#x}" if len(indices) == 1 else text.plural(len(indices), "heap")


def group_columns(groups: Sequence[LeakGroup], by: GroupKey, heaps: Sequence[Heap]) -> tuple[Column[LeakGroup], ...]:
    """The columns of a table of groups; the module that all of their keys share is in the title, not in each row."""
    module = common_module([found.key for found in groups])
    is_one = all(len(found.group.heaps) == 1 for found in groups)
    title = f"{_TITLES.get(by.value, by.value.capitalize())}{f' (in {module})' if module else ''}"
    return (
        size_column("Size", lambda g: g.group.bytes, "requested bytes of the group's busy blocks"),
        Column("Share", lambda g: text.share(g.group.share), "of the bytes of all blocks asked about", right=True),
        Column("Blocks", lambda g: text.count(g.group.count), "busy blocks", right=True),
        Column("Sizes", _sizes, "smallest and largest requested size", right=True, rank=2),
        Column("Heap", partial(_heap, heaps), "its heap, or how many heaps", right=True, rank=3, folds=is_one),
        Column(
            title,
            lambda g: short_key(g.key, module),
            "what the blocks have in common; of a stack the first frames outside allocator modules",
            flexible=36,
            wraps=True,
        ),
    )


_TITLES = {
    "stack": "Allocated by", "caller": "Allocated by", "module": "Allocated by module", "source": "Source line",
    "owner": "Held by", "owner-module": "Held by module",
}  # fmt: skip
# a place in a section (`app.exe!.data+0x10`) is no symbol: its offset stays
_SYMBOL = re.compile(r"(?P<module>[^!]*)!(?P<symbol>(?!\.).*?)(?:\+0x[0-9a-f]+)?(?P<hash> #[0-9a-f-]+)?")


def common_module(keys: Sequence[str]) -> str:
    """The module of which every key with a symbol is, if there are two such keys; else ""."""
    first = [_SYMBOL.fullmatch(key.partition(" ← ")[0]) for key in keys]
    modules = {found["module"] for found in first if found}
    return modules.pop() if len(modules) == 1 and sum(map(bool, first)) > 1 else ""


def short_key(key: str, module: str) -> str:
    """A key without offsets behind symbols, and without modules that the title or the frame before it names."""
    frames = key.split(" ← ")
    bare = [frame.partition("+0x") if "!" not in frame else ("", "", "") for frame in frames]
    short = [
        f"+0x{at}" if i and at and name == bare[i - 1][0] else _short_frame(frames[i], module)
        for i, (name, _, at) in enumerate(bare)
    ]
    return " ← ".join(short)


def _short_frame(frame: str, module: str) -> str:
    found = _SYMBOL.fullmatch(frame)
    if found is None:
        return frame
    name = found["symbol"] if found["module"] == module else f"{found['module']}!{found['symbol']}"
    return name + (found["hash"] or "")


def group_record(snapshot: Snapshot, found: LeakGroup) -> Record:
    """The JSON record of a group (interface.md)."""
    group = found.group
    return {
        "key": found.key,
        "count": group.count,
        "bytes": group.bytes,
        "min_size": group.min_size,
        "max_size": group.max_size,
        "share": group.share,
        "heaps": [hex(snapshot.heaps[heap].address) for heap in group.heaps],
        "frames": [frame_record(frame) for frame in found.frames],
        "sample": [hex(address) for address in group.sample],
        "trust": found.trust.value,
        **({"fingerprint": found.identity} if found.identity not in ("", found.key) else {}),
    }


def sort_record(found: LeakGroup) -> Record:
    """The fields of a group's record that groups can be sorted by."""
    group = found.group
    return {
        "key": found.key, "count": group.count, "bytes": group.bytes, "min_size": group.min_size,
        "max_size": group.max_size, "share": group.share,
    }  # fmt: skip


def stack_lines(shown: Sequence[LeakGroup], folds: Callable[[Frame], bool] | None) -> Iterator[Lines]:
    """The stacks of groups, numbered from 1: of the first ones, and of those that hold much; a line for the others.

    Frames for which `folds` is true are left out; None: all frames, of all groups.
    """
    omitted = 0
    for number, found in enumerate(shown, 1):
        if found.frames and (folds is None or number <= _SHOWN_STACKS or found.group.share >= _LEAST_SHARE):
            yield Lines(_stack(number, found, folds))
        else:
            omitted += bool(found.frames)
    if omitted:
        groups = text.plural(omitted, "more group")
        yield Lines([[(f"stacks of {groups}, each with less than {_LEAST_SHARE:.0%}: --full-stacks", "dim")]])


def _stack(number: int, found: LeakGroup, folds: Callable[[Frame], bool] | None) -> list[list[tuple[str, str]]]:
    """A line with the number, the blocks and some addresses, and a line for each frame."""
    group = found.group
    samples = " ".join(map(hex, group.sample[:3]))
    blocks = f"  {text.size(group.bytes)} in {text.plural(group.count, 'block')}, such as {samples}"
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
    """A note for each rule that matches no stack."""
    return tuple(f"suppression {rule.text!r} matched nothing" for rule in unused)


def suppression_gaps(snapshot: Snapshot, suppressions: Suppressions) -> tuple[str, ...]:
    """Why suppressions are not applied; nothing where they are, or there are none."""
    if not suppressions.rules or snapshot.stacks.are_recorded:
        return ()
    return ("suppressions match allocation stacks, and none are recorded in this dump: nothing was suppressed",)
