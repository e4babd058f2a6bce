"""The crash as the heap explains it, for every command that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.blocks import BlockRecorder
from heapdump.commands.common.frames import frame_record, frames_of
from heapdump.render.view import Record

if TYPE_CHECKING:
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
            "title": stop.title,
            "parameters": [hex(value) for value in stop.parameters],
            "thread": stop.thread_id,
            "witness": stop.witness,
        },
    }
