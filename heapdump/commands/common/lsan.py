"""`leaks --unreachable --lsan-compat`: unreachable blocks as the data of LeakSanitizer's report."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.graph.unreachable_report import UnreachableBlocks, UnreachableGroup
    from heapdump.process.symbols.namer import Frame
    from heapdump.render.lsan import LsanFrame, LsanLeak, LsanReport
    from heapdump.snapshot import Snapshot


def lsan_report(snapshot: Snapshot, found: UnreachableBlocks) -> LsanReport:
    """All leaks; blocks that are possibly reachable are none."""
    from heapdump.analyses.graph.unreachable import LEAKED
    from heapdump.render.lsan import LsanReport

    leaks = [_leak(snapshot, one) for one in found.groups if one.state in LEAKED]
    suppressed = [(used.count, used.bytes, used.rule.text.removeprefix("leak:")) for used in found.suppressed]
    return LsanReport(snapshot.process.pid or 0, leaks, found.leaked.bytes, found.leaked.blocks, suppressed)


def _leak(snapshot: Snapshot, one: UnreachableGroup) -> LsanLeak:
    from heapdump.analyses.graph.unreachable import Reach
    from heapdump.render.lsan import LsanLeak

    group = one.found.group
    frames = [_frame(snapshot, frame) for frame in one.found.frames]
    is_direct = one.state is Reach.DIRECT
    return LsanLeak(is_direct, group.bytes, group.count, frames, one.found.key, partial(_objects, snapshot, one))


def _objects(snapshot: Snapshot, one: UnreachableGroup) -> Iterator[tuple[int, int]]:
    return ((block.address, block.size) for block in snapshot.walk.table.blocks(one.rows()))


def _frame(snapshot: Snapshot, frame: Frame) -> LsanFrame:
    from heapdump.render.lsan import LsanFrame

    place = f"{frame.file}:{frame.line}" if frame.file else _in_module(snapshot, frame)
    return LsanFrame(frame.address, frame.symbol or "", place)


def _in_module(snapshot: Snapshot, frame: Frame) -> str:
    """`(module+offset)`: LeakSanitizer's symbolizers take the offset in the module, not behind a symbol."""
    module = snapshot.process.module_map.at(frame.address)
    if module is None:
        return f"({frame.module or '<unknown module>'})"
    return f"({module.name}+{frame.address - module.span.start:#x})"
