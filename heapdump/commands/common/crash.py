"""The crash as the heap explains it, for every command that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.blocks import BlockRecorder
from heapdump.commands.common.frames import frame_record, frames_of, stack_lines
from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.analyses.damage.crash import Crash
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot


def crash_record(request: Request, snapshot: Snapshot) -> Record | None:
    """The JSON record; None where the heap explains nothing."""
    crash = snapshot.crash
    if crash is None:
        return None
    frames = [frame_record(frame) for frame in frames_of(request, snapshot, crash.block)]
    stop = crash.stop
    return {
        "bug": crash.bug,
        "message": crash.sentence,
        "address": None if crash.address is None else hex(crash.address),
        "block": BlockRecorder(snapshot)(crash.block),
        "allocated_by": [] if crash.is_free_stack else frames,
        "freed_by": frames if crash.is_free_stack else [],
        "verifier_stop": None
        if stop is None
        else {
            "code": hex(stop.code),
            "words": stop.words,
            "parameters": [hex(value) for value in stop.parameters],
            "thread": stop.thread_id,
            "witness": stop.witness,
        },
    }


def crash_lines(request: Request, snapshot: Snapshot, crash: Crash) -> list[list[tuple[str, str]]]:
    """The bug, the stop parameters, the recorded stack of the block."""
    lines = [[(f"{crash.bug}: ", "red bold"), (crash.sentence, "red")]]
    if crash.stop is not None:
        words = ", ".join(f"{value:#x}" for value in crash.stop.parameters)
        lines.append([(f"  stop parameters {words} from {crash.stop.witness}", "dim")])
    lines += stack_lines(request, snapshot, crash.block)
    return lines
