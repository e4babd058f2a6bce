"""The thread and the frame whose registers expressions name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from heapdump.errors import WrongUsage
from heapdump.process.model import Process, Teb, Thread, View
from heapdump.process.stacks.frames import StackFrame, exception_registers, thread_frames
from heapdump.process.symbols.namer import Namer

_LOW_HALVES = {
    **{f"e{name}": f"r{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip")},
    **{f"r{number}d": f"r{number}" for number in range(8, 16)},
}
"""Name of the low 32 bits of an x64 register → the register."""


def find_thread(process: Process, text: str) -> Thread:
    """The thread that a text names: `~2` by its index, `0x288c` by its id; digits alone by its id, decimal or hex.

    Raises:
        WrongUsage: no thread, or two of them.
    """
    word = text.strip().lower()
    found = [thread for thread in process.threads if _is_named(thread, word)]
    if len(found) > 1:
        raise WrongUsage(f"{text!r} names {len(found)} threads; write 0x{word} or 0n{word}")
    if word.startswith(("/", "\\")) or word[1:3] == ":\\":
        raise WrongUsage(f"{text!r} is no thread: a shell turns ~0 into the name of a folder; write '~0' in quotes")
    if not found:
        known = ", ".join(f"~{thread.index} {thread.id:#x}" for thread in process.threads[:5])
        more = " …" if len(process.threads) > 5 else ""
        raise WrongUsage(f"no thread {text!r}; there are: {known or 'none'}{more}")
    return found[0]


def _is_named(thread: Thread, word: str) -> bool:
    if word.startswith("~"):
        return word[1:] == str(thread.index)
    if word.startswith("0n"):
        return word[2:] == str(thread.id)
    digits = word.removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]+", digits):
        return False
    return f"{thread.id:x}" == digits.lstrip("0") or word == str(thread.id)


def _has_x86_registers(thread: Thread) -> bool:
    """True where a 32-bit program wrote the dump: the thread's registers are those of its 32-bit half."""
    return thread.registers is not None and thread.registers.arch == "x86"


@dataclass
class FramePlace:
    """A thread, and the frame whose registers expressions name.

    Attributes:
        process: the process.
        namer: names addresses.
        thread_name: as `find_thread` takes it; None for the crashed thread, else the first one.
        frame_number: as `threads --frames` numbers frames; None for the innermost frame, whose registers are all known.
        arch: half of a WOW64 process; None for the half that the thread was in.
    """

    process: Process
    namer: Namer
    thread_name: str | None = None
    frame_number: int | None = None
    arch: str | None = None
    _frames: dict[int, list[StackFrame]] = field(default_factory=dict)

    @cached_property
    def thread(self) -> Thread | None:
        """The thread; None in a dump without threads.

        Raises:
            WrongUsage: no thread has that name.
        """
        if self.thread_name is not None:
            return find_thread(self.process, self.thread_name)
        raised = self.process.exception
        crashed = (thread for thread in self.process.threads if raised and thread.id == raised.thread_id)
        return next(crashed, next(iter(self.process.threads), None))

    @cached_property
    def _frames_by_view(self) -> list[tuple[View, StackFrame]]:
        """Every frame of the thread with its view, in the order of `threads --frames`."""
        if self.thread is None:
            return []
        return [
            (view, frame)
            for view in reversed(self.process.views)
            for frame in thread_frames(self.process, self.thread, view, self.namer)
        ]

    @cached_property
    def frame(self) -> tuple[View, StackFrame] | None:
        """The frame that `frame_number` names, with its view; None without a number.

        Raises:
            WrongUsage: the thread has no such frame.
        """
        if self.frame_number is None:
            return None
        frames = self._frames_by_view
        if not 0 <= self.frame_number < len(frames):
            name = f"thread {self.thread.id:#x}" if self.thread else "the dump"
            raise WrongUsage(f"{name} has no frame {self.frame_number}; it has {len(frames)}, numbered from 0")
        return frames[self.frame_number]

    @cached_property
    def view(self) -> View:
        """The view that pointers are read in: that of `arch`, or of the frame.

        Else the 32-bit one where the thread has such registers.
        """
        named = next((view for view in self.process.views if view.arch == self.arch), None)
        if named is not None:
            return named
        if self.frame is not None:
            return self.frame[0]
        is_narrow = self.thread is None or self.thread.registers32 is not None or _has_x86_registers(self.thread)
        return self.process.views[-1] if is_narrow else self.process.views[0]

    def view_at(self, address: int) -> View:
        """The view that memory at an address is read in.

        That of `arch`, else the 64-bit one above 4 GiB, else that of the stack there, else that of the place.
        """
        by_arch = {view.arch: view for view in self.process.views}
        stacks = (stack for thread in self.process.threads for stack in thread.stacks)
        of_stack = next((one.view for one in stacks if one.limit <= address < one.base), None)
        wanted = self.arch or ("x64" if address >> 32 else of_stack)
        return next((view for name, view in by_arch.items() if name == wanted), self.view)

    @cached_property
    def registers(self) -> Mapping[str, int]:
        """Register → value, as far as the values are known in this frame. Names in lower case."""
        if self.frame is not None:
            return self.frame[1].registers
        if self.thread is None:
            return {}
        raised = self.process.exception
        values: dict[str, int] = {}
        for view in self.process.views:
            own = self.thread.registers32 if view.arch == "x86" and self.thread.registers32 else self.thread.registers
            if raised is not None and raised.thread_id == self.thread.id:
                own = exception_registers(self.process, view) or own
            if own is not None and own.arch == view.arch:
                values |= own.values
        return values

    def register(self, name: str) -> int | None:
        """The value of a register, or of the low half of one; None where it is not known here."""
        if name in self.registers:
            return self.registers[name]
        full = self.registers.get(_LOW_HALVES.get(name, ""))
        return None if full is None else full & 0xFFFFFFFF

    @property
    def teb(self) -> Teb | None:
        """The TEB of the thread in this view."""
        if self.thread is None:
            return None
        return next((teb for teb in self.thread.tebs if teb.view == self.view.arch and teb.address), None)

    @property
    def words(self) -> str:
        """The place for a person: `thread 0x288c`, `frame 6 of thread 0x288c`."""
        thread = f"thread {self.thread.id:#x}" if self.thread else "a dump without threads"
        return thread if self.frame_number is None else f"frame {self.frame_number} of {thread}"
