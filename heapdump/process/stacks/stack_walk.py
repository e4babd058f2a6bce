"""One stack walked up, frame by frame.

`How` is the way in which a frame was found. It decides the trust of the frame: exact by the context and by unwind data,
derived by a return address behind a call or by a frame pointer chain that ends where threads start, else guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from heapdump.process.model import Process, Stack, View
from heapdump.process.stacks.frame_pointers import FramePointers
from heapdump.process.stacks.frame_programs import caller_of
from heapdump.process.stacks.home_slots import home_arguments
from heapdump.process.stacks.registers import Registers
from heapdump.process.stacks.return_addresses import ReturnAddresses, Returns
from heapdump.process.stacks.unwind import caller_registers
from heapdump.process.symbols.namer import Frame, Namer
from heapdump.trust import Trust

_MOST_FRAMES = 256
_SCAN_BYTES = 0x4000
_SCANNED_WORDS = 8192
"""Words of one stack that scans read, all scans together."""


class How(StrEnum):
    """The way in which a frame was found.

    CONTEXT: by the recorded registers of the thread. UNWIND: by x64 unwind data. FRAME_POINTER: by the chain of saved
    x86 frame pointers. CALL_SCAN: a word of the stack that points behind a call. SCAN: a word of the stack that points
    into code that is not in the dump. MANAGED: by unwind data or frame pointers, in code of a runtime such as .NET.
    INLINE: a function that the PDB says was inlined in the next frame.
    """

    CONTEXT = "context"
    UNWIND = "unwind"
    FRAME_POINTER = "frame-pointer"
    CALL_SCAN = "call-scan"
    SCAN = "scan"
    MANAGED = "managed"
    INLINE = "inline"


class StackEnd(StrEnum):
    """Where the frames of a thread end. BOTTOM: at the thread's start, or no word above can be a return address."""

    BOTTOM = "bottom"
    MEMORY = "stack memory is not in the dump"
    LIMIT = "too many frames"
    SCAN = f"no return address in the next {_SCAN_BYTES:,} bytes of the stack"
    REGISTERS = "no registers in the dump"


_ORDER = tuple(Trust)
_PROLOG = b"\x55\x8b\xec"
_PRESERVED = ("rip", "rsp", "rbp", "rbx", "rsi", "rdi", "r12", "r13", "r14", "r15")
"""x64 registers that unwind data restores (Microsoft's x64 calling convention)."""


@dataclass(frozen=True, slots=True)
class StackFrame:
    """One frame of a thread.

    Attributes:
        sp: stack pointer in the frame.
        frame: its code address, with name.
        how: how it was found.
        words: x86: the three words behind saved frame pointer and return address, as WinDbg's `kv` prints them; these
            are the arguments of a function that keeps a frame pointer and takes its arguments on the stack. x64: the
            home slots of rcx, rdx, r8, r9; None where the function did not store the register there.
        fp: x86 frame pointer; None on x64.
        returns: address that the frame returns to; None for the last frame.
        registers: name → value of the integer registers that are known in the frame.
    """

    sp: int
    frame: Frame
    how: How
    words: tuple[int | None, ...] = ()
    fp: int | None = None
    returns: int | None = None
    registers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """The frames of a thread, innermost first, and where they end."""

    frames: tuple[StackFrame, ...]
    end: StackEnd

    @property
    def has_no_registers(self) -> bool:
        """True where the dump has no registers to begin with."""
        return self.end is StackEnd.REGISTERS

    @property
    def has_guesses(self) -> bool:
        """True when a frame was found by a scan only, or by a frame pointer chain that is cut."""
        return any(found.frame.trust is Trust.GUESS for found in self.frames)


@dataclass(frozen=True, slots=True)
class _Step:
    """One step to the caller: how it was made, and the trust in it."""

    how: How
    trust: Trust


class StackWalk:
    """Walks one stack up. `run` gives its frames."""

    def __init__(self, process: Process, view: View, namer: Namer, stack: Stack | None, registers: Registers) -> None:
        """Starts at the registers; `stack`: None where its bounds are not known."""
        self._process, self._view, self._namer = process, view, namer
        self._registers = dict(registers.values)
        self._returns = ReturnAddresses(process, view, namer)
        self._budget = _SCANNED_WORDS
        self._parameters = 0  # bytes of the callee's parameters on the stack, by frame data
        self._ip, self._sp = ("rip", "rsp") if view.arch == "x64" else ("eip", "esp")
        low = self._registers[self._sp]
        self._is_top_known = stack is not None and stack.limit <= low < stack.base
        self._top = stack.base if stack is not None and self._is_top_known else low + _SCAN_BYTES
        self._chain = FramePointers(view.space, self._returns, self._top)
        self._end = StackEnd.BOTTOM

    def run(self) -> ThreadStack:
        """The frames, innermost first, at most 256, and where they end. Each frame lies above the one before."""
        frames = list(self._frames())
        linked = [self._linked(one, caller) for one, caller in itertools.pairwise(frames)]
        return ThreadStack((*linked, *frames[-1:]), self._end)

    def _linked(self, one: StackFrame, caller: StackFrame) -> StackFrame:
        """The frame with the address that it returns to, and on x64 with its arguments in home slots."""
        words = one.words
        ip = one.frame.address if one.how is How.CONTEXT else one.frame.address - 1
        module = self._process.module_map.at(ip)
        image = self._namer.image(module) if module else None
        is_unwound = caller.how is How.UNWIND and self._view.arch == "x64"
        if module is not None and image is not None and is_unwound and one.how is not How.INLINE:
            words = home_arguments(self._view.space, image, ip - module.span.start, caller.sp)
        return replace(one, returns=caller.frame.address, words=words)

    def _frames(self) -> Iterator[StackFrame]:
        step = _Step(How.CONTEXT, Trust.EXACT)
        for number in range(_MOST_FRAMES):
            yield from self._named(step, is_top=number == 0)
            sp = self._registers[self._sp]
            found = self._step(step, is_top=number == 0)
            if found is None or not sp < self._registers[self._sp] <= self._top or not self._registers[self._ip]:
                return
            step = found
        self._end = StackEnd.LIMIT

    def _named(self, step: _Step, *, is_top: bool) -> Iterator[StackFrame]:
        """The frame with the functions inlined in it before it."""
        ip, sp = self._registers[self._ip], self._registers[self._sp]
        names = (self._namer.name(ip, 0),) if is_top else self._namer.frames(ip)
        fp = self._registers["ebp"] if self._view.arch == "x86" else None
        for name in names:
            trust = max(name.trust, step.trust, key=_ORDER.index)
            how = How.INLINE if name is not names[-1] else self._how(step, ip)
            yield StackFrame(sp, replace(name, trust=trust), how, self._words(), fp, None, self._known(step))

    def _how(self, step: _Step, ip: int) -> How:
        """How the frame was found; `managed` where its code is a runtime's and the step to it was regular."""
        is_regular = step.how in (How.UNWIND, How.FRAME_POINTER)
        return How.MANAGED if is_regular and self._namer.code.holds(ip - 1) else step.how

    def _known(self, step: _Step) -> dict[str, int]:
        """The registers whose values in this frame are known: all at the context, what callees preserve behind it."""
        if step.how is How.CONTEXT:
            return dict(self._registers)
        is_x64 = self._view.arch == "x64"
        names = _PRESERVED if step.how is How.UNWIND and is_x64 else (self._ip, self._sp, "ebp")
        return {name: self._registers[name] for name in names if name in self._registers}

    def _words(self) -> tuple[int, ...]:
        """The words behind the saved frame pointer and the return address."""
        if self._view.arch == "x64" or not self._registers["esp"] <= self._registers["ebp"] < self._top:
            return ()
        data = self._view.space.try_read(self._registers["ebp"] + 8, 12) or b""
        return tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data) - 3, 4))

    def _step(self, before: _Step, *, is_top: bool) -> _Step | None:
        """Goes to the caller; how it was found, or None."""
        if self._view.arch == "x64":
            return self._by_unwind_data(is_top=is_top)
        return self._by_frame_pointer(before, is_top=is_top)

    def _by_unwind_data(self, *, is_top: bool) -> _Step | None:
        ip = self._registers["rip"]
        module = self._process.module_map.at(ip if is_top else ip - 1)
        image = self._namer.image(module) if module else None
        if module is not None and image is not None and len(image.functions):
            found = caller_registers(self._view.space, image, module.span.start, self._registers, is_top=is_top)
            if found is not None:
                self._registers = found
                return _Step(How.UNWIND, Trust.EXACT)
        elif (foreign := self._namer.code.unwind(ip if is_top else ip - 1)) is not None:
            found = caller_registers(self._view.space, foreign[1], foreign[0], self._registers, is_top=is_top)
            if found is not None:
                self._registers = found
                return _Step(How.UNWIND, Trust.EXACT)
        if is_top and (taken := self._take(self._registers["rsp"])):
            return taken  # of a leaf, such as a system call, or of a call to nowhere
        return self._scan()

    def _by_frame_pointer(self, before: _Step, *, is_top: bool) -> _Step | None:
        """By the chain; in a leaf first by the word at the stack pointer: a leaf keeps no frame pointer."""
        registers = self._registers
        if (by_program := self._by_frame_data(is_top=is_top)) is not None:
            return by_program
        in_leaf = is_top or before.how in (How.SCAN, How.CALL_SCAN)
        if in_leaf and (taken := self._take(registers["esp"])):
            return taken
        link = self._chain.link(registers["ebp"]) if registers["esp"] <= registers["ebp"] < self._top else None
        if link is None:
            return (
                None if self._chain.is_end(registers["ebp"]) and before.how is How.FRAME_POINTER else self._scan_x86()
            )
        skipped = self._skipped(link.frame) if self._returns.enters(link.returns, registers["eip"]) is False else None
        skipped = skipped or self._frameless(link.frame)
        if skipped is not None:
            return skipped
        self._registers = registers | {"ebp": link.caller, "eip": link.returns, "esp": link.frame + 8}
        return _Step(How.FRAME_POINTER, Trust.DERIVED if link.is_sure else Trust.GUESS)

    def _by_frame_data(self, *, is_top: bool) -> _Step | None:
        """By the frame data of the module's PDB; derived where a call stands before the return address."""
        ip = self._registers["eip"]
        record = self._namer.frame_record(ip if is_top else ip - 1)
        above, self._parameters = self._parameters, record.parameter_bytes if record else 0
        if record is None:
            return None

        def is_return(address: int) -> bool:
            """True where the address can be a return address, checked or not."""
            return self._returns.judge(address) is not Returns.NO

        found = caller_of(self._view.space, record, self._registers, above, is_return)
        if found is None or not self._registers["esp"] < found["esp"] <= self._top:
            return None
        self._registers = found
        is_checked = self._returns.judge(found["eip"]) is Returns.CALL
        return _Step(How.UNWIND, Trust.DERIVED if is_checked else Trust.GUESS)

    def _scan_x86(self) -> _Step | None:
        """By a scan, but to the next frame pointer chain that leads to the thread's start where code is not there."""
        start = self._registers["esp"]
        link = self._chain.first_complete(start, min(self._top, start + _SCAN_BYTES))
        if link is None:
            return self._scan()
        self._registers = self._registers | {"ebp": link.caller, "eip": link.returns, "esp": link.frame + 8}
        return _Step(How.FRAME_POINTER, Trust.GUESS)

    def _skipped(self, below: int) -> _Step | None:
        """A caller without a frame pointer below the next link: its call enters the function of this frame."""
        ip = self._registers["eip"]
        for at in range(self._registers["esp"], min(below, self._registers["esp"] + _SCAN_BYTES), 4):
            word = self._view.space.try_integer(at, 4)
            if word is not None and self._returns.judge(word) is Returns.CALL and self._returns.enters(word, ip):
                return self._take(at)
        return None

    def _frameless(self, below: int) -> _Step | None:
        """The caller of a jitted method without a frame pointer: the nearest return address below the next link.

        Small methods are compiled so (2.1.8 x86); one with a frame pointer begins with `push ebp; mov ebp, esp`.
        """
        ip = self._registers["eip"]
        managed = self._namer.code.name(ip - 1)
        if managed is None or managed.symbol is None:
            return None
        head = self._view.space.try_read(ip - 1 - managed.offset, len(_PROLOG))
        if head is None or head == _PROLOG:
            return None
        places = range(self._registers["esp"], min(below, self._registers["esp"] + _SCAN_BYTES), 4)
        return next((found for at in places if (found := self._take(at)) is not None), None)

    def _take(self, at: int) -> _Step | None:
        """Returns to the address that lies at `at` when it can be a return address."""
        pointer = self._view.pointer_bytes
        address = self._view.space.try_integer(at, pointer)
        judged = Returns.NO if address is None else self._returns.judge(address)
        if address is None or judged is Returns.NO or self._returns.is_recorded(at):
            return None
        self._registers = self._registers | {self._ip: address, self._sp: at + pointer}
        if judged is Returns.UNCHECKED:
            return _Step(How.SCAN, Trust.GUESS)
        is_next = at == self._registers[self._sp] - pointer
        return _Step(How.CALL_SCAN, Trust.DERIVED if is_next else Trust.GUESS)

    def _scan(self) -> _Step | None:
        pointer, start = self._view.pointer_bytes, self._registers[self._sp]
        end = min(self._top, start + _SCAN_BYTES)
        for at in range(start, end, pointer):
            self._budget -= 1
            if self._budget < 0:
                self._end = StackEnd.LIMIT
                return None
            if self._take(at):
                judged = self._returns.judge(self._registers[self._ip])
                return _Step(How.SCAN if judged is Returns.UNCHECKED else How.CALL_SCAN, Trust.GUESS)
        self._end = self._after_scan(start, end)
        return None

    def _after_scan(self, start: int, end: int) -> StackEnd:
        """Where a stack ends whose bytes [start, end) hold no return address; BOTTOM where they reach its known top."""
        if start < end and self._view.space.try_read(start, end - start) is None:
            return StackEnd.MEMORY
        return StackEnd.SCAN if end < self._top or not self._is_top_known else StackEnd.BOTTOM
