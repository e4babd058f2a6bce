"""Groups as one JSON record and back, for the index. Each frame is written once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heapdump.analyses.allocated.groups import BlockGroup
from heapdump.analyses.allocated.leaks import LeakGroup
from heapdump.process.symbols.namer import Frame
from heapdump.trust import Trust

Record = dict[str, Any]


def to_record(groups: Sequence[LeakGroup]) -> Record:
    """The groups; frames by number."""
    numbers: dict[Frame, int] = {}
    rows = [_row(group, [numbers.setdefault(frame, len(numbers)) for frame in group.frames]) for group in groups]
    return {"frames": [_frame(frame) for frame in numbers], "groups": rows}


def from_record(record: Record) -> tuple[LeakGroup, ...]:
    """The groups of a record."""
    frames = [
        Frame(address, module, symbol, offset, file, line, Trust(trust), note, signature)
        for address, module, symbol, offset, file, line, trust, note, signature in record["frames"]
    ]
    return tuple(_group(row, frames) for row in record["groups"])


def _frame(frame: Frame) -> list[Any]:
    return [
        frame.address, frame.module, frame.symbol, frame.offset, frame.file, frame.line, frame.trust.value, frame.note,
        frame.signature,
    ]  # fmt: skip


def _row(found: LeakGroup, frames: list[int]) -> list[Any]:
    group = found.group
    return [
        found.key, found.trust.value, frames, group.value, group.count, group.bytes, group.min_size, group.max_size,
        group.share, group.heaps, group.sample, found.identity,
    ]  # fmt: skip


def _group(row: list[Any], frames: Sequence[Frame]) -> LeakGroup:
    key, trust, numbers, value, count, size, low, high, share, heaps, sample, identity = row
    group = BlockGroup(value, count, size, low, high, share, tuple(heaps), tuple(sample))
    return LeakGroup(key, group, tuple(frames[number] for number in numbers), Trust(trust), identity)
