"""Code of the process: its bytes from memory or image files, starts of functions, runs of aligned instructions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from heapdump.analyses.by_hand.alignment import aligned_before
from heapdump.process.model import Process, View
from heapdump.process.stacks.disassembly import Instruction, decode
from heapdump.process.symbols.namer import Namer

_STEP = 16
_LONGEST_FUNCTION = 1 << 16
"""Bytes of a function whose end is not known."""

_LONGEST_KNOWN = 1 << 20
"""Bytes of a function whose end is known: damaged unwind data may give it gigabytes."""

_MOST_INSTRUCTIONS = 1 << 16
"""Instructions of a function: each is a line."""

_SEARCHED = 1 << 12
"""Bytes before an address in which the start of a function is looked for on x86."""

_VOTERS = 512
"""Bytes before an address at which decodings begin where the function's start is not known."""

_PROLOGUES = (b"\x8b\xff\x55\x8b\xec", b"\x55\x8b\xec")
"""mov edi, edi; push ebp; mov ebp, esp: how compilers begin x86 functions."""

_PADDING = (0xCC, 0x90, 0xC3, 0x00)
_RET_N = 0xC2


@dataclass(frozen=True, slots=True)
class Function:
    """A function.

    Attributes:
        start: address of its first byte.
        end: address behind its last byte; None where it is not known.
        words: how its start was found, for a person.
    """

    start: int
    end: int | None
    words: str


@dataclass(frozen=True, slots=True)
class Body:
    """The instructions of a function.

    Attributes:
        run: the instructions, ascending.
        missing: first address of the function that neither the dump nor an image file holds; None where the
            instructions end for another reason.
        stops: address at which the listing ends before the function does, or without its end known; None elsewhere.
    """

    run: list[Instruction]
    missing: int | None
    stops: int | None


class Code:
    """Code of one process in one view."""

    def __init__(self, process: Process, view: View, namer: Namer) -> None:
        """`namer` gives images and names."""
        self._process, self._view, self._namer = process, view, namer

    def from_address(self, address: int, size: int) -> bytes:
        """The bytes from an address on, up to the first one that neither the dump nor an image file holds."""
        data = self._read(address, size)
        if data is not None:
            return data
        pieces: list[bytes] = []
        for at in range(address, address + size, _STEP):
            piece = self._read(at, _STEP)
            if piece is None:
                pieces.extend(one for one in self._singles(at) if one is not None)
                break
            pieces.append(piece)
        return b"".join(pieces)[:size]

    def before_address(self, address: int, size: int) -> bytes:
        """The bytes before an address, down to the last one that is not there."""
        start = max(0, address - size)
        data = self._read(start, address - start)
        if data is not None:
            return data
        pieces: list[bytes] = []
        at = address
        while at - _STEP >= start and (piece := self._read(at - _STEP, _STEP)) is not None:
            pieces.append(piece)
            at -= _STEP
        while at > start and (one := self._read(at - 1, 1)) is not None:
            pieces.append(one)
            at -= 1
        return b"".join(reversed(pieces))

    def _singles(self, address: int) -> Iterator[bytes | None]:
        for at in range(address, address + _STEP):
            one = self._read(at, 1)
            if one is None:
                return
            yield one

    def _read(self, address: int, size: int) -> bytes | None:
        data = self._view.space.try_read(address, size)
        module = self._process.module_map.at(address)
        if data is not None or module is None:
            return data
        image = self._namer.image(module)
        return image.read(address - module.span.start, size) if image else None

    def function(self, address: int) -> Function | None:
        """The function that holds an address: by unwind data, a symbol, or on x86 by a prologue; None where none fits.

        A symbol or a prologue counts only where a run of instructions from it on meets the address.
        """
        found = self._by_unwind_data(address)
        if found is not None:
            return found
        return next(
            (one for one in (*self._by_symbol(address), *self._by_prologue(address)) if self._meets(one, address)), None
        )

    def _by_unwind_data(self, address: int) -> Function | None:
        module = self._process.module_map.at(address)
        image = self._namer.image(module) if module else None
        if module is None or image is None or not len(image.functions):
            return None
        found = image.function_at(address - module.span.start)
        if found is None:
            return None
        base = module.span.start
        return Function(base + found[0], base + found[1], "unwind data")

    def _by_symbol(self, address: int) -> Iterator[Function]:
        named = self._namer.name(address, 0)
        if named.symbol is not None and named.offset is not None and named.offset < _LONGEST_FUNCTION:
            yield Function(address - named.offset, None, f"symbol {named.symbol}")

    def _by_prologue(self, address: int) -> Iterator[Function]:
        """Prologues behind padding or a return, the nearest first."""
        if self._view.pointer_bytes == 8:
            return
        before = self.before_address(address, _SEARCHED)
        base, code = address - len(before), before + self.from_address(address, len(_PROLOGUES[0]))
        for at in range(len(before), 2, -1):
            is_behind = code[at - 1] in _PADDING or code[at - 3] == _RET_N
            if is_behind and code.startswith(_PROLOGUES, at):
                yield Function(base + at, None, "prologue")

    def _meets(self, function: Function, address: int) -> bool:
        """True when a run of instructions from the function's start meets the address."""
        if function.start == address:
            return True
        code = self.from_address(function.start, address - function.start)
        if len(code) < address - function.start:
            return False
        run = list(decode(code, function.start, self._view.pointer_bytes))
        return bool(run) and run[-1].end == address and not any(one.text.startswith("db ") for one in run)

    def before(self, address: int, count: int, function: Function | None) -> list[Instruction]:
        """The last `count` instructions that end at an address: from the function's start, else by votes."""
        if function is not None and function.start <= address and self._meets(function, address):
            code = self.from_address(function.start, address - function.start)
            return list(decode(code, function.start, self._view.pointer_bytes))[-count:] if count else []
        code = self.before_address(address, _VOTERS)
        return aligned_before(code, address, self._view.pointer_bytes, count)

    def after(self, address: int, count: int) -> list[Instruction]:
        """Up to `count` instructions from an address on."""
        code = self.from_address(address, (count + 1) * _STEP)
        return list(decode(code, address, self._view.pointer_bytes))[:count]

    def all_of(self, function: Function) -> Body:
        """The instructions of a function. Without a known end: up to where no jump inside it leads on."""
        start = function.start
        size = _LONGEST_FUNCTION if function.end is None else min(_LONGEST_KNOWN, function.end - start)
        code = self.from_address(start, size)
        run, is_whole = self._run(function, code, start + size)
        if is_whole:
            return Body(run, None, None)
        if len(code) < size and len(run) < _MOST_INSTRUCTIONS:
            return Body(run, start + len(code), None)
        return Body(run, None, run[-1].end if run else start)

    def _run(self, function: Function, code: bytes, end: int) -> tuple[list[Instruction], bool]:
        """(the instructions of a function, True where its end is among them). `end`: up to which jumps count."""
        run: list[Instruction] = []
        farthest = function.start
        is_all = function.end is not None and function.start + len(code) >= function.end
        decoded = decode(code, function.start, self._view.pointer_bytes, is_all=is_all)
        for one in islice(decoded, _MOST_INSTRUCTIONS):
            run.append(one)
            if one.is_jump and one.target is not None and one.target < end:
                farthest = max(farthest, one.target)
            if function.end is None and one.is_final and one.end > farthest:
                return run, True
        return run, bool(run) and function.end is not None and run[-1].end >= function.end
