"""The chain of saved frame pointers on an x86 stack: each leads to {frame pointer of the caller, return address}."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.memory.space import AddressSpace
from heapdump.process.stacks.return_addresses import ReturnAddresses, Returns

_MOST_LINKS = 256
_ENDS = (0, 0xFFFFFFFF)
"""Saved frame pointers that end a chain; ntdll's first frame of a thread saves either."""

_FIRST_FRAMES = 0x800
"""Bytes at the end of a stack in which the frames of the thread's start lie (0x38 to 0x480 seen)."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the chain at address `frame`: the caller's frame pointer and the address that the frame returns to.

    `is_sure`: a call stands before the return address, or the whole chain leads to where threads start.
    """

    frame: int
    caller: int
    returns: int
    is_sure: bool


class FramePointers:
    """Follows the chain. Frame pointers grow and stay on the stack; return addresses lie in code of modules."""

    def __init__(self, space: AddressSpace, returns: ReturnAddresses, top: int) -> None:
        """`top`: end of the stack (exclusive)."""
        self._space, self._returns, self._top = space, returns, top
        self._complete: dict[int, bool] = {}

    def link(self, frame: int) -> Link | None:
        """The link at a frame pointer; None where it is none."""
        read = self._read(frame)
        if read is None:
            return None
        caller, returns = read
        judged = self._returns.judge(returns)
        if judged is Returns.CALL:
            return Link(frame, caller, returns, is_sure=True)
        if judged is Returns.NO or not (caller in _ENDS or frame < caller < self._top):
            return None
        return Link(frame, caller, returns, self._is_complete(frame))

    def first_complete(self, start: int, end: int) -> Link | None:
        """The lowest link in [start, end) whose chain has three links or more and leads to where threads start."""
        for frame in range(start, end, 4):
            link = self.link(frame)
            if link is not None and self._is_complete(frame) and self._is_long(link):
                return link
        return None

    def _is_long(self, link: Link) -> bool:
        """True when two more links follow: shorter chains turn up by chance."""
        following = None if link.caller in _ENDS else self.link(link.caller)
        return following is not None and following.caller not in _ENDS and self.link(following.caller) is not None

    def is_end(self, frame: int) -> bool:
        """True when the chain ends at this frame pointer: it is an end itself, or its return address is zero."""
        read = (0, 0) if frame in _ENDS else self._read(frame)
        return read is not None and read[1] == 0

    def _is_complete(self, frame: int) -> bool:
        """True when the chain from here leads to its end over growing frame pointers and possible return addresses."""
        passed: list[int] = []
        answer = False
        for _ in range(_MOST_LINKS):
            if frame in self._complete:
                answer = self._complete[frame]
                break
            if self.is_end(frame):
                answer = bool(passed) and (passed[-1] if frame in _ENDS else frame) >= self._top - _FIRST_FRAMES
                break
            read = self._read(frame)
            if read is None or self._returns.judge(read[1]) is Returns.NO:
                break
            passed.append(frame)
            if read[0] not in _ENDS and not frame < read[0] < self._top:
                break
            frame = read[0]
        self._complete |= dict.fromkeys(passed, answer)
        return answer

    def _read(self, frame: int) -> tuple[int, int] | None:
        caller, returns = self._space.try_integer(frame, 4), self._space.try_integer(frame + 4, 4)
        return None if caller is None or returns is None else (caller, returns)
