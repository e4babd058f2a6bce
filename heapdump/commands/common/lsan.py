"""`leaks --unreachable --lsan-compat`: the report as LeakSanitizer prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.graph.unreachable_report import Lost, LostGroup
    from heapdump.process.symbols.namer import Frame
    from heapdump.snapshot import Snapshot

_RULER = "-" * 53


def as_lsan(snapshot: Snapshot, lost: Lost, most: int, *, with_objects: bool, with_suppressions: bool) -> Iterator[str]:
    """The report as LeakSanitizer prints it; `most` groups of it, 0: all."""
    from heapdump.analyses.graph.unreachable import Reach

    groups = [one for one in lost.groups if one.kind is not Reach.POSSIBLE]
    if groups:
        yield f"\n{'=' * 65}\n=={snapshot.process.pid or 0}==ERROR: LeakSanitizer: detected memory leaks\n\n"
    most = most or len(groups)
    if most < len(groups):
        yield f"The {most} top leak(s):\n"
    for one in groups[:most]:
        yield from _leak(snapshot, one, with_objects=with_objects)
    if most < len(groups):
        yield f"Omitting {len(groups) - most} more leak(s).\n"
    if with_suppressions and lost.suppressed:
        yield f"{_RULER}\nSuppressions used:\n  count      bytes template\n"
        yield from (
            f"{rule.count:7} {rule.bytes:10} {text.printable(rule.text.removeprefix('leak:'))}\n"
            for rule in lost.suppressed
        )
        yield f"{_RULER}\n\n"
    if groups:
        yield f"SUMMARY: LeakSanitizer: {lost.leaked.bytes} byte(s) leaked in {lost.leaked.blocks} allocation(s).\n"


def _leak(snapshot: Snapshot, one: LostGroup, *, with_objects: bool) -> Iterator[str]:
    group = one.found.group
    yield f"{one.kind.name.capitalize()} leak of {group.bytes} byte(s) in {group.count} object(s) allocated from:\n"
    for number, frame in enumerate(one.found.frames):
        name = f"in {frame.symbol}" if frame.symbol else ""
        place = f"{frame.file}:{frame.line}" if frame.file else _in_module(snapshot, frame)
        yield f"    {text.printable(f'#{number} {frame.address:#x} {name} {place}')}\n"
    if not one.found.frames:
        yield f"    <no stack recorded: {text.printable(one.found.key)}>\n"
    yield "\n"
    if with_objects:
        yield "Objects leaked above:\n"
        yield from (f"{block.address:#x} ({block.size} bytes)\n" for block in snapshot.walk.table.blocks(one.rows()))
        yield "\n"


def _in_module(snapshot: Snapshot, frame: Frame) -> str:
    """Where in its module a frame lies, which is what LeakSanitizer's symbolisers want: not behind which symbol."""
    module = snapshot.process.module_map.at(frame.address)
    if module is None:
        return f"({frame.module or '<unknown module>'})"
    return f"({module.name}+{frame.address - module.span.start:#x})"
