"""Call stacks of threads: a table of frames for each, their JSON records, and one line on what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.commands.common.frames import frame_record
from heapdump.render.view import Column, Lines, PageItem, Record, Table
from heapdump.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from heapdump.process.model import Process, Thread
    from heapdump.process.stacks.frames import StackFrame, ThreadStack

Numbered = tuple[int, "StackFrame"]
GUESSED = (
    "? marks a guess: a caller found by a word of the stack that may be a return address; where code is not in the "
    "dump, --image-path names image files that have it"
)
_HOW = (
    "how the frame was found: registers, unwind data, frame pointer; managed: one of these, in code of .NET or Java; "
    "call-scan: a word of the stack behind a call; scan: a word that points into code which the dump does not hold"
)
_SYSTEM_FOLDER = "\\windows\\"


def frame_columns(process: Process, first_own: int | None, *, args: bool) -> tuple[Column[Numbered], ...]:
    """Columns of a table of numbered frames; `first_own`: number of the first frame of the program itself."""
    words: Column[Numbered] = Column(
        "Args", lambda r: _words(r[1]),
        "x86: three words behind the return address, as kv; x64: home slots, where the function stored its registers",
    )  # fmt: skip
    return (
        Column("#", lambda r: f"{r[0]}", "number of the frame, as --frame takes it", right=True),
        Column("ChildSP", lambda r: f"{r[1].sp:#x}", "stack pointer in the frame", right=True, rank=1),
        Column("RetAddr", lambda r: _address(r[1].returns), "address that it returns to", right=True, rank=3),
        *((words,) if args else ()),
        Column(
            "Where",
            lambda r: f"{r[1].frame}{' ?' if r[1].frame.trust is Trust.GUESS and r[1].how != 'context' else ''}",
            "module!symbol+offset of the frame's address; ? = the frame is a guess",
            style=frame_style(process, first_own),
            flexible=40,
            wraps=True,
        ),
        Column("How", lambda r: str(r[1].how), _HOW, style="dim", rank=2),
    )


def frame_style(process: Process, first_own: int | None) -> Callable[[Numbered], str]:
    """The style of a numbered frame: bold for the program's first one; dim for Windows', and for words of the stack."""
    system = {module.name for module in process.modules if _SYSTEM_FOLDER in module.path.lower()}

    def style(row: Numbered) -> str:
        """Of rich."""
        number, found = row
        if number == first_own:
            return "bold"
        return "dim" if found.frame.module in system or found.how == "scan" else ""

    return style


@dataclass(frozen=True, slots=True)
class StackPages:
    """The frames of threads, a table for each; all tables have the same columns.

    Attributes:
        process: the process.
        stacks: index of a thread → its stacks; a WOW64 thread has two.
        args: True for a column of arguments.
        widest: of each column the frame with the widest text.
        last: index of the last thread that is shown and has frames.
    """

    process: Process
    stacks: Mapping[int, Sequence[ThreadStack]]
    args: bool
    widest: Sequence[Numbered]
    last: int | None

    @classmethod
    def of(
        cls, process: Process, stacks: Mapping[int, Sequence[ThreadStack]], shown: Sequence[Thread], *, args: bool
    ) -> StackPages:
        """The pages of the threads that are shown."""
        frames = {thread.index: frames_of(stacks.get(thread.index, ())) for thread in shown}
        rows = [row for of_thread in frames.values() for row in enumerate(of_thread)]
        columns = frame_columns(process, None, args=args) if rows else ()
        widest = [_widest(column, rows) for column in columns]
        with_frames = [index for index, of_thread in frames.items() if of_thread]
        return cls(process, stacks, args, widest, with_frames[-1] if with_frames else None)

    def page(self, thread: Thread, locks: str) -> list[PageItem]:
        """The page of a thread. `locks`: words on the locks of heaps that it holds or waits for."""
        page: list[PageItem] = [_heading(self.process, thread, self.stacks[thread.index], locks)]
        frames = frames_of(self.stacks[thread.index])
        if frames:
            columns = frame_columns(self.process, first_own(self.process, frames), args=self.args)
            rows = list(enumerate(frames))
            page.append(Table(columns, rows, beside=self.widest, goes_on=thread.index != self.last))
        return page


def _widest(column: Column[Numbered], rows: Sequence[Numbered]) -> Numbered:
    return max(rows, key=lambda row: len(column.text(row)))


def frames_of(stacks: Sequence[ThreadStack]) -> list[StackFrame]:
    """The frames of all stacks of a thread."""
    return [found for stack in stacks for found in stack.frames]


def _heading(process: Process, thread: Thread, stacks: Sequence[ThreadStack], locks: str) -> Lines:
    """The thread, and the reason why frames are missing."""
    heading: list[tuple[str, str]] = [(f"~{thread.index} tid {thread.id:#x}", "bold")]
    if thread.name:
        heading.append((f" {thread.name}", "bold"))
    if process.exception is not None and process.exception.thread_id == thread.id:
        heading.append(("  the exception's thread", "red"))
    if locks:
        heading.append((f"  {locks}", "red"))
    reason = "; ".join(dict.fromkeys(str(stack.end) for stack in _own_halves(stacks) if stack.end != "bottom"))
    return Lines([heading, *([[(f"  {reason}", "dim")]] if reason else [])])


def _own_halves(stacks: Sequence[ThreadStack]) -> Sequence[ThreadStack]:
    """The stacks without one that a 32-bit writer left out: it has no registers of the 64-bit half."""
    is_narrow = len(stacks) > 1 and stacks[-1].has_no_registers and bool(stacks[0].frames)
    return stacks[:-1] if is_narrow else stacks


def first_own(process: Process, frames: Sequence[StackFrame]) -> int | None:
    """The number of the first frame in a module outside the Windows folder; None where there is none."""
    own = {module.name for module in process.modules if _SYSTEM_FOLDER not in module.path.lower()}
    return next((number for number, found in enumerate(frames) if found.frame.module in own), None)


def stack_frame_record(found: StackFrame, *, args: bool) -> Record:
    """A frame of a thread (interface.md, F)."""
    record = frame_record(found.frame) | {
        "sp": hex(found.sp),
        "fp": None if found.fp is None else hex(found.fp),
        "return": None if found.returns is None else hex(found.returns),
        "how": found.how,
    }
    return record | {"args": [None if word is None else hex(word) for word in found.words]} if args else record


def stack_gaps(stacks: Mapping[int, Sequence[ThreadStack]]) -> list[str]:
    """One line for each reason why frames are missing, with the number of threads."""
    reasons: dict[str, int] = {}
    for of_thread in stacks.values():
        ends = {str(stack.end) for stack in _own_halves(of_thread) if not stack.frames or stack.end != "bottom"}
        if any(stack.frames and stack.end == "bottom" for stack in of_thread):
            continue
        for end in ends:
            reasons[end] = reasons.get(end, 0) + 1
    return [f"frames of {count} thread{'s' if count != 1 else ''} are missing: {end}" for end, count in reasons.items()]


def has_guesses(stacks: Mapping[int, Sequence[ThreadStack]]) -> bool:
    """True when a frame of any thread is a guess."""
    return any(stack.has_guesses for of_thread in stacks.values() for stack in of_thread)


def _address(value: int | None) -> str:
    return "-" if value is None else f"{value:#x}"


def _words(found: StackFrame) -> str:
    return " ".join("-" if word is None else f"{word:08x}" for word in found.words)
