"""Call stacks of threads: by unwind data (x64), by the frame pointer chain (x86), else by a scan for return addresses.

`How` is the way in which a frame was found. It decides the trust of the frame: exact by the context and by unwind data,
derived by a frame pointer whose return address stands behind a call, guess by a scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from heapdump.process.model import Process, Stack, Thread, View
from heapdump.process.stacks.disassembly import CALL_BYTES, ends_with_call
from heapdump.process.stacks.registers import Registers
from heapdump.process.stacks.unwind import caller_registers
from heapdump.process.symbols.namer import Frame, Namer
from heapdump.trust import Trust

_MOST_FRAMES = 256
_SCAN_BYTES = 0x4000
_SCANNED_WORDS = 8192
"""Words of one stack that scans read, all scans together."""


class How(StrEnum):
    """The way in which a frame was found. RETURN_ADDRESS: of a leaf function, at the stack pointer."""

    CONTEXT = "context"
    UNWIND_DATA = "unwind data"
    FRAME_POINTER = "frame pointer"
    RETURN_ADDRESS = "return address"
    SCAN = "scan"


_TRUST = {
    How.CONTEXT: Trust.EXACT,
    How.UNWIND_DATA: Trust.EXACT,
    How.FRAME_POINTER: Trust.DERIVED,
    How.RETURN_ADDRESS: Trust.DERIVED,
    How.SCAN: Trust.GUESS,
}
_ORDER = tuple(Trust)


@dataclass(frozen=True, slots=True)
class StackFrame:
    """A frame of a thread: `sp` of the frame, its named address, and how it was found.

    `words`: on x86 the three words behind saved frame pointer and return address, as `kv` prints them. They are the
    arguments of a function that keeps a frame pointer and gets its arguments on the stack.
    """

    sp: int
    frame: Frame
    how: How
    words: tuple[int, ...] = ()


def thread_frames(process: Process, thread: Thread, view: View, namer: Namer) -> list[StackFrame]:
    """The frames of a thread in one view, innermost first; of the crashed thread from the exception's registers on.

    Ends where the stack does, or where nothing more was found. None recorded: an empty list.
    """
    registers = thread.registers32 if view.arch == "x86" and thread.registers32 else thread.registers
    if process.exception is not None and process.exception.thread_id == thread.id:
        from_exception = exception_registers(process, view)
        registers = from_exception or registers
    if registers is None or registers.arch != view.arch:
        return []
    stack = next((stack for stack in thread.stacks if stack.view == view.arch), None)
    walk = _StackWalk(process, view, namer, stack, registers)
    return list(walk.frames())


def crashed_frames(process: Process, namer: Namer) -> list[StackFrame]:
    """The frames of the thread that raised the exception, from where it did; empty without an exception."""
    raised = process.exception
    thread = next((thread for thread in process.threads if raised and thread.id == raised.thread_id), None)
    if thread is None:
        return []
    every = (thread_frames(process, thread, view, namer) for view in reversed(process.views))
    return next((frames for frames in every if frames), [])


def exception_registers(process: Process, view: View) -> Registers | None:
    """The registers at the exception, as this view has them; None where they were not recorded."""
    from heapdump.process.stacks.registers import read_context

    found = read_context(process.exception.context) if process.exception else None
    return found if found is not None and found.arch == view.arch else None


class _StackWalk:
    """Walks one stack up, frame by frame."""

    def __init__(self, process: Process, view: View, namer: Namer, stack: Stack | None, registers: Registers) -> None:
        self._process, self._view, self._namer = process, view, namer
        self._registers = dict(registers.values)
        self._budget = _SCANNED_WORDS
        self._ip, self._sp = ("rip", "rsp") if view.arch == "x64" else ("eip", "esp")
        low = self._registers[self._sp]
        self._top = stack.base if stack is not None and stack.limit <= low < stack.base else low + _SCAN_BYTES

    def frames(self) -> Iterator[StackFrame]:
        """Every frame; each step must go up the stack."""
        how = How.CONTEXT
        for number in range(_MOST_FRAMES):
            ip, sp = self._registers[self._ip], self._registers[self._sp]
            names = (self._namer.name(ip, 0),) if number == 0 else self._namer.frames(ip)
            for name in names:
                yield StackFrame(sp, _trusted(name, how), how, self._words())
            found = self._step(is_top=number == 0)
            if found is None or not sp < self._registers[self._sp] <= self._top:
                return
            how = found
            if not self._registers[self._ip]:
                return

    def _words(self) -> tuple[int, ...]:
        """The words behind the saved frame pointer and the return address."""
        if self._view.arch == "x64" or not self._registers["esp"] <= self._registers["ebp"] < self._top:
            return ()
        data = self._view.space.try_read(self._registers["ebp"] + 8, 12) or b""
        return tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))

    def _step(self, *, is_top: bool) -> How | None:
        """Goes to the caller; how it was found, or None."""
        if self._view.arch == "x64":
            return self._by_unwind_data(is_top=is_top)
        return self._by_frame_pointer(is_top=is_top)

    def _by_unwind_data(self, *, is_top: bool) -> How | None:
        ip = self._registers["rip"]
        module = self._process.module_map.at(ip if is_top else ip - 1)
        image = self._namer.image(module) if module else None
        if module is not None and image is not None and len(image.functions):
            found = caller_registers(self._view.space, image, module.span.start, self._registers, is_top=is_top)
            if found is not None:
                self._registers = found
                return How.UNWIND_DATA
        if is_top and self._take(self._registers["rsp"]):
            return How.RETURN_ADDRESS  # of a leaf, such as a system call
        return self._scan()

    def _by_frame_pointer(self, *, is_top: bool) -> How | None:
        space, frame = self._view.space, self._registers["ebp"]
        if is_top and self._take(self._registers["esp"]):
            return How.RETURN_ADDRESS
        if self._registers["esp"] <= frame < self._top:
            caller, address = space.try_integer(frame, 4), space.try_integer(frame + 4, 4)
            if caller is not None and address is not None and self._is_return(address):
                self._registers |= {"ebp": caller, "eip": address, "esp": frame + 8}
                return How.FRAME_POINTER
        return self._scan()

    def _take(self, at: int) -> bool:
        """Returns to the address that lies at `at` when it is a return address."""
        pointer = self._view.pointer_bytes
        address = self._view.space.try_integer(at, pointer)
        if address is None or not self._is_return(address):
            return False
        self._registers |= {self._ip: address, self._sp: at + pointer}
        return True

    def _scan(self) -> How | None:
        pointer, start = self._view.pointer_bytes, self._registers[self._sp]
        for at in range(start, min(self._top, start + _SCAN_BYTES), pointer):
            self._budget -= 1
            if self._budget < 0:
                return None
            if self._take(at):
                return How.SCAN
        return None

    def _is_return(self, address: int) -> bool:
        """True for an address in a module, behind a call instruction in its memory or its image file."""
        key = (self._view.arch, address)
        if key not in self._namer.return_addresses:
            self._namer.return_addresses[key] = self._looks_returned(address)
        return self._namer.return_addresses[key]

    def _looks_returned(self, address: int) -> bool:
        module = self._process.module_map.at(address - 1)
        if module is None:
            return False
        code = self._view.space.try_read(address - CALL_BYTES, CALL_BYTES)
        if code is None:
            image = self._namer.image(module)
            code = image.read(address - CALL_BYTES - module.span.start, CALL_BYTES) if image else None
        return code is not None and ends_with_call(code, address, self._view.pointer_bytes)


def _trusted(frame: Frame, how: How) -> Frame:
    """The frame with the worse trust of its name and of how it was found."""
    worse = max(frame.trust, _TRUST[how], key=_ORDER.index)
    return replace(frame, trust=worse)
