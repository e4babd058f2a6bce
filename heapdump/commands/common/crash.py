"""The crash as the heap explains it, for every command that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.block_rows import Recorder, frame_record, frames_of, stack_number
from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.analyses.damage.crash import Crash
    from heapdump.analyses.damage.verdict import Verdict
    from heapdump.blocks.table import Block
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

_UNKNOWN = {
    True: "it was allocated by an unknown stack: page heap keeps the one that freed it",
    False: "no allocation stack was recorded",
}


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
        "block": Recorder(snapshot)(crash.block),
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
    """What happened and both stacks, as far as they are recorded."""
    lines = [[(f"{crash.bug}: ", "red bold"), (crash.sentence, "red")]]
    if crash.stop is not None:
        words = ", ".join(f"{value:#x}" for value in crash.stop.parameters)
        lines.append([(f"  stop parameters {words} from {crash.stop.witness}", "dim")])
    lines += stack_lines(request, snapshot, crash.block)
    return lines


def verdict_line(verdict: Verdict, command: tuple[str, ...]) -> list[tuple[str, str]]:
    """Whether the heap is damaged, and the command that tells more."""
    return [
        (f"heap: {verdict.text}", _verdict_style(verdict)),
        (f" → heapdump {' '.join(command)}", "cyan"),
    ]


def _verdict_style(verdict: Verdict) -> str:
    if verdict.errors:
        return "red"
    return "yellow" if verdict.unchecked else "green" if verdict.heaps else "dim"


def stack_lines(request: Request, snapshot: Snapshot, block: Block) -> list[list[tuple[str, str]]]:
    """`freed by` or `allocated by`, a line for each frame, and a word on the stack that is not known."""
    from heapdump.analyses.blocks.page_heap import is_free_stack

    is_free = is_free_stack(block)
    frames = frames_of(request, snapshot, block)
    number = stack_number(snapshot, block)
    verb = "freed" if is_free else "allocated"
    lines: list[list[tuple[str, str]]] = []
    if frames:
        lines = [[(f"{verb} by stack {number:#x}:", "bold")], *([(f"  {frame}", "")] for frame in frames)]
    elif number:
        lines = [[(f"{verb} by stack {number:#x}, whose record is damaged or not in the dump", "dim")]]
    if is_free or not number:
        lines.append([(_UNKNOWN[is_free], "dim")])
    return lines
