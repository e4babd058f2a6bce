"""`leaks --export`: grouped stacks in the formats of profile viewers and of UMDH."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from heapdump.commands.common.gaps import walk_gaps
from heapdump.errors import WrongUsage
from heapdump.render.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.allocated.leaks import Leaks
    from heapdump.commands.common.request import Request
    from heapdump.process.symbols.namer import Frame
    from heapdump.render.profiles import Sample, SampleFrame
    from heapdump.render.umdh import Allocation
    from heapdump.snapshot import Snapshot

EXPORTS = ["folded", "speedscope", "pprof", "umdh", "flame"]
_BATCH = 4096
_TABLE_OPTIONS = {"json_": "--json", "format_": "--format", "limit": "--limit", "explain": "--explain"}
"""Options for tables and records: they do not apply to an export."""


def check_options(kind: str | None, by: str | None) -> None:
    """Refuses options that an export of this kind (None: no export) would ignore.

    Raises:
        WrongUsage: options contradict each other; the message says what to leave out.
    """
    context = click.get_current_context()
    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if "weight" in given and kind != "folded":
        raise WrongUsage(
            "--weight is what folded lines count; the other exports have bytes and blocks: add --export folded"
        )
    if kind is None:
        return
    if by not in (None, "stack"):
        raise WrongUsage(f"--export {kind} writes whole stacks, not groups by {by}; leave out --group-by, or --export")
    for name, option in _TABLE_OPTIONS.items():
        if name in given:
            raise WrongUsage(
                f"--export {kind} has a format of its own, with all stacks; leave out {option}, or --export"
            )


def export_stacks(request: Request, snapshot: Snapshot, leaks: Leaks, kind: str, *, by_blocks: bool) -> int:
    """Writes the groups in one of `EXPORTS`; the exit code.

    Raises:
        WrongUsage: the dump has no recorded stacks.
    """
    from heapdump.render import flame, profiles

    if leaks.missing:
        raise WrongUsage(f"--export {kind}: {leaks.missing}")
    gaps = walk_gaps(snapshot)
    samples = [_sample(found.frames, found.group.count, found.group.bytes) for found in leaks.groups]
    title = f"{snapshot.dump.path.name}: {leaks.bytes:,} bytes in {leaks.blocks:,} busy blocks"
    if kind == "pprof":
        when = snapshot.dump.directory.header.timestamp
        return request.write_bytes(snapshot, profiles.pprof(samples, modules_of(snapshot), when), gaps)
    pieces: Iterator[str]
    if kind == "folded":
        pieces = profiles.folded(samples, by_blocks=by_blocks)
    elif kind == "speedscope":
        pieces = iter([profiles.speedscope(samples, title)])
    elif kind == "flame":
        pieces = iter([flame.flame(samples, title)])
    else:
        pieces = _umdh(snapshot, leaks.rows)
    return request.write(snapshot, pieces, gaps)


def _sample(frames: tuple[Frame, ...], blocks: int, size: int) -> Sample:
    from heapdump.render.profiles import Sample

    return Sample(tuple(map(sample_frame, frames)), blocks, size)


def sample_frame(frame: Frame) -> SampleFrame:
    """A frame for viewers, without the offset behind a symbol: viewers then add up the frames of a function."""
    from heapdump.render.profiles import SampleFrame

    name = f"{frame.module}!{frame.symbol}" if frame.symbol else str(frame)
    return SampleFrame(printable(name), frame.address, printable(frame.file) if frame.file else None, frame.line)


def modules_of(snapshot: Snapshot) -> list[tuple[str, int, int]]:
    """(path, start, end) of every module."""
    return [(printable(module.path), module.span.start, module.span.end) for module in snapshot.process.modules]


def _umdh(snapshot: Snapshot, rows: NDArray[np.int64]) -> Iterator[str]:
    import numpy as np

    from heapdump.render import umdh

    table, stacks = snapshot.walk.table, snapshot.stacks
    frames: dict[int, tuple[int, ...]] = {}
    owners = table.heap[rows]

    def allocations(heap: int) -> Iterator[Allocation]:
        """The chosen blocks of one heap. Frames of each stack are added to `frames` before its first block."""
        of_heap = rows[np.flatnonzero(owners == heap)]
        for first in range(0, len(of_heap), _BATCH):
            batch = of_heap[first : first + _BATCH]
            numbers = stacks.numbers(batch).tolist()
            for number in set(numbers) - frames.keys():
                frames[number] = stacks.frames(snapshot.heaps[heap], number)
            for block, number in zip(table.blocks(batch), numbers, strict=True):
                yield umdh.Allocation(block.address, block.size, block.entry_size - block.size, number)

    heaps = ((heap.address, allocations(heap.index)) for heap in snapshot.heaps if bool((owners == heap.index).any()))
    return umdh.log(modules_of(snapshot), heaps, frames)
