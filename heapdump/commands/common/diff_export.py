"""`diff --export`: the change of each stack in the formats of UMDH and of profile viewers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from heapdump.commands.common.export import modules_of, sample_frame
from heapdump.render.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.compare.difference import Difference
    from heapdump.analyses.compare.groups import ComparedGroup
    from heapdump.commands.common.request import Request
    from heapdump.render.profiles import Sample
    from heapdump.snapshot import Snapshot

EXPORTS = ["umdh", "pprof", "flame"]


def export_difference(
    request: Request, snapshots: list[Snapshot], difference: Difference, kind: str, gaps: Sequence[str]
) -> int:
    """Writes the groups that changed from the first to the last dump in one of `EXPORTS`; the exit code."""
    from heapdump.render import flame, profiles

    changed = [group for group in difference.groups if group.delta_bytes or group.delta_count]
    if kind == "pprof":
        new = [_sample(one, one.new.count, one.new.bytes, difference) for one in difference.groups if one.new.count]
        old = [_sample(one, one.old.count, one.old.bytes, difference) for one in difference.groups if one.old.count]
        when = difference.dumps[-1].time or 0
        return request.write_bytes(snapshots, profiles.pprof(new, modules_of(snapshots[-1]), when, old), gaps)
    if kind == "flame":
        names = f"{snapshots[0].dump.path.name} → {snapshots[-1].dump.path.name}"
        title = f"{names}: {difference.reconciliation.groups_delta:+,} bytes; red grew, blue shrank"
        samples = [
            replace(
                _sample(one, abs(one.delta_count), abs(one.delta_bytes), difference),
                net_blocks=one.delta_count,
                net_bytes=one.delta_bytes,
            )
            for one in changed
        ]
        return request.write(snapshots, iter([flame.flame(samples, title)]), gaps)
    return request.write(snapshots, _umdh(difference, changed), gaps)


def _sample(group: ComparedGroup, blocks: int, size: int, difference: Difference) -> Sample:
    """The group; frames of another run without their addresses, which mean nothing in the last dump."""
    from heapdump.render.profiles import Sample

    frames = tuple(map(sample_frame, group.frames))
    if not difference.comparability.is_same_process and not group.new.count:
        frames = tuple(replace(frame, address=0) for frame in frames)
    return Sample(frames, blocks, size)


def _umdh(difference: Difference, groups: Sequence[ComparedGroup]) -> Iterator[str]:
    from heapdump.render import umdh

    overhead = difference.dumps[-1].overhead_bytes - difference.dumps[0].overhead_bytes
    changes = [
        umdh.Change(
            int(group.id[:8], 16), group.old.bytes, group.new.bytes, group.old.count, group.new.count,
            tuple(printable(str(frame)) for frame in group.frames),
        )
        for group in groups
    ]  # fmt: skip
    return umdh.difference(changes, overhead)
