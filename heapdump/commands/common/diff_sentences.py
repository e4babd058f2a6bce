"""The differences that matter most, in sentences. Two dumps show growth, never a leak."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from heapdump.analyses.compare.modules import ModuleChangeKind
from heapdump.analyses.compare.trend import Shape
from heapdump.render import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from heapdump.analyses.compare.difference import Difference, Row
    from heapdump.analyses.compare.groups import ComparedGroup
    from heapdump.analyses.compare.modules import ModuleChange

_MOST_GROUPS = 3
_ENOUGH_SHARE, _LEAST_SHARE = 0.8, 0.05
"""Groups are named until they have the first share of the growth; one below the second share is not named."""

_MOST_NAMES = 3
_TWO_HOURS = 2
_SAME_MEAN = 1.25
_NOTABLE_BYTES = 1 << 20
"""Growth of private memory that is mentioned."""

_NOTABLE = 16
"""A free run that lost less than this part of its bytes is not mentioned."""


class DiffSentence(NamedTuple):
    """A statement, and the arguments of the command that shows more; () for a statement without one."""

    text: str
    command: tuple[str, ...] = ()


def sentences(difference: Difference, last_dump: str, holder: Callable[[int], str]) -> list[DiffSentence]:
    """The statements, the most important first.

    `last_dump`: the file that commands are about. `holder(address)`: the root that holds a block of it, "" for none.
    """
    grown = list(_trends(difference, last_dump) if difference.trends else _groups(difference.groups, last_dump))
    if grown and grown[0].command and (root := holder(int(grown[0].command[-1], 16))):
        grown[0] = grown[0]._replace(text=f"{grown[0].text}; held by {root}")
    return [
        *_busy(difference),
        *_outlook(difference, last_dump),
        *grown,
        *_crt(difference),
        *_unreachable(difference, last_dump),
        *_private(difference),
        *_address_space(difference, last_dump),
        *_modules(difference, last_dump),
    ]


def _verb(delta: int) -> str:
    return "grew" if delta > 0 else "shrank"


def _busy(difference: Difference) -> Iterator[DiffSentence]:
    found = difference.reconciliation
    old, new = difference.dumps[0], difference.dumps[-1]
    blocks = f"{text.plural(old.busy_blocks, 'block')} to {text.plural(new.busy_blocks, 'block')}"
    if not found.busy_delta:
        same = old.busy_blocks == new.busy_blocks
        number = f"in {text.plural(new.busy_blocks, 'block')}" if same else f"from {blocks}"
        yield DiffSentence(f"busy memory did not change: {text.short_size(new.busy_bytes)} {number}")
        return
    share = f" ({found.busy_delta / old.busy_bytes:+.1%})" if old.busy_bytes else ""
    yield DiffSentence(
        f"busy memory {_verb(found.busy_delta)} by {text.short_size(abs(found.busy_delta))}{share}: from "
        f"{text.short_size(old.busy_bytes)} to {text.short_size(new.busy_bytes)}, from {blocks}"
    )


def _groups(groups: Sequence[ComparedGroup], last_dump: str) -> Iterator[DiffSentence]:
    """The groups with most of the growth, and one that shrank where nothing grew."""
    grown = [group for group in groups if group.delta_bytes > 0]
    total = sum(group.delta_bytes for group in grown)
    named = 0.0
    for group in grown[:_MOST_GROUPS]:
        share = group.delta_bytes / total
        if named >= _ENOUGH_SHARE or share < _LEAST_SHARE:
            break
        named += share
        command = ("refs", last_dump, hex(group.sample[0])) if group.sample else ()
        yield DiffSentence(f"{share:.1%} of what grew is {_described(group)}", command)


def _trends(difference: Difference, last_dump: str) -> Iterator[DiffSentence]:
    """The groups that grow steadily, most slope times share first; without one, the groups that grew most."""
    steady = [group for group in difference.groups if group.trend and group.trend.bytes.shape is Shape.STEADY_GROWTH]
    named = [group for group in steady if group.trend and group.trend.share >= _LEAST_SHARE][:_MOST_GROUPS]
    for group in named:
        trend = group.trend
        if trend is None:
            continue
        per = "h" if trend.bytes.is_per_hour else "dump"
        steps = len(group.values) - 1
        rising = (
            f"{round(trend.bytes.share_up * steps)} of {text.plural(steps, 'step')} up, p {_p(trend.bytes.p_value)}"
        )
        command = ("refs", last_dump, hex(group.sample[0])) if group.sample else ()
        yield DiffSentence(
            f"steady growth of {text.short_size(round(trend.bytes.slope))}/{per} ({trend.share:.0%} of what grew; "
            f"{rising}): {_described(group)}{_objects(group)}",
            command,
        )
    if not named:
        yield from _groups(difference.groups, last_dump)


def _p(p_value: float) -> str:
    return f"= {p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def _objects(group: ComparedGroup) -> str:
    """Larger blocks, or more blocks of the same size."""
    old, new = group.old, group.new
    if not old.count or not new.count or group.min_size == group.max_size:
        return ""
    mean_old, mean_new = old.bytes / old.count, new.bytes / new.count
    if new.count <= old.count:
        return "; the blocks grow, not their number"
    return "; more blocks of the same sizes" if 0.8 <= mean_new / mean_old <= _SAME_MEAN else ""


def _outlook(difference: Difference, last_dump: str) -> Iterator[DiffSentence]:
    outlook = difference.outlook
    if outlook is not None:
        slope = text.short_size(round(outlook.bytes_per_hour))
        hours = f"{outlook.hours:.0f} h" if outlook.hours >= _TWO_HOURS else f"{outlook.hours * 60:.0f} min"
        yield DiffSentence(
            f"at {slope}/h of private memory, the largest allocatable block ({text.short_size(outlook.bytes_left)}) is "
            f"used up in {hours}",
            ("gaps", last_dump),
        )


def _described(group: ComparedGroup) -> str:
    """`2.1 MB in 13 more blocks, now 56 of 1 to 1,052,672 bytes, allocated by …`."""
    low, high, delta = group.min_size, group.max_size, group.delta_count
    sizes = f"of {low:,} bytes" if low == high else f"of {low:,} to {high:,} bytes"
    if delta > 0:
        more = f"in {delta:,} more {'block' if delta == 1 else 'blocks'}, now {group.new.count:,} {sizes}"
    elif delta < 0:
        fewer = f"{-delta:,} fewer {'block' if delta == -1 else 'blocks'}"
        more = f"in {fewer} that are larger, now {group.new.count:,} {sizes}"
    else:
        more = f"in as many blocks that are larger, {group.new.count:,} {sizes}"
    whose = f", allocated by {group.label}" if group.frames else f": {group.label}"
    if group.label == f"{low:,} bytes":  # grouped by size
        whose = ""
    return f"{text.short_size(group.delta_bytes)} {more}{whose}"


def _unreachable(difference: Difference, last_dump: str) -> Iterator[DiffSentence]:
    old, new = difference.dumps[0].unreachable, difference.dumps[-1].unreachable
    if old is None or new is None:
        return
    was, now = (f"{text.plural(one.blocks, 'block')} with {text.short_size(one.bytes)}" for one in (old, new))
    yield DiffSentence(f"no pointer leads to {now}, before to {was}", ("leaks", last_dump, "--unreachable"))


def _crt(difference: Difference) -> Iterator[DiffSentence]:
    """The blocks that are new for sure, by the numbers that the CRT's debug heap gives its allocations."""
    first, last = difference.dumps[0].crt, difference.dumps[-1].crt
    if first is not None and last is not None and difference.comparability.is_same_process:
        blocks = f"{text.plural(last.new_blocks, 'block')} with {text.short_size(last.new_bytes)}"
        yield DiffSentence(f"{blocks} were allocated after the first dump (CRT request numbers above {first.last:,})")


def _private(difference: Difference) -> Iterator[DiffSentence]:
    """Where private memory grew by other things than busy blocks."""
    private = _row(difference.counters, "private_bytes")
    delta, busy = private.delta, difference.reconciliation.busy_delta
    if delta and delta >= _NOTABLE_BYTES and delta - max(busy, 0) > delta // 2:
        items = [(row.name, row.delta or 0) for row in difference.items[:_MOST_NAMES]]
        grown = ", ".join(f"{name} {text.short_size(size)}" for name, size in items if size > 0)
        what = f"; committed memory grew in: {grown}" if grown else ""
        yield DiffSentence(
            f"private memory grew by {text.short_size(delta)}, busy blocks by {text.short_size(max(busy, 0))}{what}"
        )


def _address_space(difference: Difference, last_dump: str) -> Iterator[DiffSentence]:
    """The largest free run of a 32-bit process, where it lost a sixteenth or more."""
    largest = _row(difference.address_space, "largest_free_bytes")
    if not largest.delta or largest.delta > 0 or not difference.dumps[-1].limit.is_32bit:
        return
    was, now = (text.short_size(value or 0) for value in (largest.values[0], largest.values[-1]))
    if -largest.delta < (largest.values[0] or 0) // _NOTABLE:
        return
    words = f"the largest free run shrank from {was} to {now}"
    first = max(difference.gaps, key=lambda gap: gap.span.size, default=None)
    if first is not None and first.span == _largest_before(difference):
        names = [f"{one.words} ({text.short_size(one.span.size)})" for one in first.occupants[:_MOST_NAMES]]
        others = len(first.occupants) + first.hidden - len(names)
        names += [f"{text.plural(others, 'other allocation')}"] if others else []
        words += f"; where it was, from {first.span.start:#x} on, now lie {', '.join(names)}"
    yield DiffSentence(words, ("gaps", last_dump))


def _largest_before(difference: Difference) -> object:
    free = difference.dumps[0].free
    return free.largest if free else None


def _modules(difference: Difference, last_dump: str) -> Iterator[DiffSentence]:
    words = {
        ModuleChangeKind.NEW: "new module",
        ModuleChangeKind.MOVED: "moved module",
        ModuleChangeKind.VERSION: "module of another version",
        ModuleChangeKind.GONE: "unloaded module",
    }
    found = {change: [_explained(one) for one in difference.modules if one.change is change] for change in words}
    sentences = [_named(words[change], names) for change, names in found.items() if names]
    if sentences:
        yield DiffSentence("; ".join(sentences), ("modules", last_dump))


def _explained(change: ModuleChange) -> str:
    """The name of a module, with what it imports, or what lies at its old base."""
    if change.memory_imports:
        more = "" if len(change.memory_imports) <= _MOST_NAMES else " …"
        return f"{change.name} (imports {', '.join(change.memory_imports[:_MOST_NAMES])}{more})"
    if change.at_old_base and change.old is not None and change.new is not None:
        now = ", ".join(one.words for one in change.at_old_base[:_MOST_NAMES])
        return f"{change.name} (from {change.old.span.start:#x}, where {now} lies now, to {change.new.span.start:#x})"
    return change.name


def _named(word: str, names: list[str]) -> str:
    """`2 new modules: a.dll, b.dll`."""
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    number = f"{len(names):,} {word.replace('module', 'modules') if len(names) != 1 else word}"
    return f"{number}: {', '.join(names[:_MOST_NAMES])}{more}"


def _row(rows: Sequence[Row], name: str) -> Row:
    return next(row for row in rows if row.name == name)
