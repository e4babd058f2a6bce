"""Return addresses: whether a word can be one, by the call before it, and which function that call enters."""

from __future__ import annotations

from enum import Enum, auto

from heapdump.memory.regions import State
from heapdump.process.model import Module, Process, View
from heapdump.process.stacks.disassembly import CALL_BYTES, call_target, ends_with_call
from heapdump.process.symbols.namer import Namer

_EXECUTE = 0xF0
"""PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY (winnt.h)."""

_HEADERS = 0x1000
"""Bytes at the start of an image that hold its headers and no code, where the section table is not there."""

_LONGEST_FUNCTION = 0x10000
_X64_CONTEXT_FLAGS, _X64_CONTEXT_RIP, _X86_CONTEXT_EIP = 0x30, 0xF8, 0xB8
_CONTEXT_AMD64, _CONTEXT_I386, _CONTEXT_PARTS = 0x00100000, 0x00010000, 0x8010007F
_MOST_PARAMETERS = 15


class Returns(Enum):
    """Whether an address can be a return address.

    NO: it is none. CALL: a call instruction ends there. UNCHECKED: it lies in an executable part of a module whose code
    neither the dump nor a file holds.
    """

    NO = auto()
    CALL = auto()
    UNCHECKED = auto()


class ReturnAddresses:
    """Judges words of stacks as return addresses in one view; what was judged once is kept with the namer."""

    def __init__(self, process: Process, view: View, namer: Namer) -> None:
        """`namer` gives the images of modules whose code is not in the dump."""
        self._process, self._view, self._namer = process, view, namer

    def judge(self, address: int) -> Returns:
        """Whether an address can be a return address; decided once for each address."""
        key = (self._view.arch, address)
        known = self._namer.return_addresses
        if key not in known:
            known[key] = self._judged(address).value
        return Returns(known[key])

    def enters(self, address: int, ip: int) -> bool | None:
        """True when the call before `address` can have entered the function that holds `ip`.

        None: the target of the call is not known, as of `call eax`. Jumps of import and incremental-link thunks are
        followed once.
        """
        code = self._code(address)
        target = call_target(code, address, self._view.pointer_bytes, self._pointer) if code else None
        if target is None:
            return None
        return any(start <= ip < start + _LONGEST_FUNCTION for start in (target, self._jump(target)) if start)

    def is_recorded(self, at: int) -> bool:
        """True when the word at stack address `at` is the ip of a CONTEXT or the address of an EXCEPTION_RECORD there.

        Windows writes both on the stack of a thread that raises an exception. They are no return addresses.
        """
        return self._is_context_ip(at) or self._is_exception_address(at)

    def _judged(self, address: int) -> Returns:
        module = self._process.module_map.at(address - 1)
        if module is None:
            return self._judged_foreign(address)
        code = self._code(address)
        if code is None:
            return Returns.UNCHECKED if self._is_executable(module, address - 1) else Returns.NO
        return Returns.CALL if ends_with_call(code, address, self._view.pointer_bytes) else Returns.NO

    def _judged_foreign(self, address: int) -> Returns:
        """Of code in no module: only that of a runtime counts."""
        if not self._namer.code.holds(address - 1):
            return Returns.NO
        code = self._code(address)
        is_behind = code is not None and ends_with_call(code, address, self._view.pointer_bytes)
        return Returns.UNCHECKED if code is None else Returns.CALL if is_behind else Returns.NO

    def _code(self, address: int) -> bytes | None:
        """The bytes before an address, from memory, else from the image file."""
        code = self._view.space.try_read(address - CALL_BYTES, CALL_BYTES)
        module = self._process.module_map.at(address - 1)
        if code is not None or module is None:
            return code
        image = self._namer.image(module)
        return image.read(address - CALL_BYTES - module.span.start, CALL_BYTES) if image else None

    def _is_executable(self, module: Module, address: int) -> bool:
        """By the section table, else by the memory map; else all behind the headers counts."""
        image, rva = self._namer.image(module), address - module.span.start
        if image is not None:
            return image.is_code(rva)
        regions = self._process.regions
        i = regions.index_at(address) if regions.is_complete_map else None
        if i is not None:
            return regions.state[i] == State.MEM_COMMIT and bool(regions.protect[i] & _EXECUTE)
        return rva >= _HEADERS

    def _pointer(self, address: int) -> int | None:
        return self._view.space.try_integer(address, self._view.pointer_bytes)

    def _jump(self, address: int) -> int | None:
        """The target of a `jmp` at the address: relative, or through a pointer in memory."""
        code = self._view.space.try_read(address, 6)
        if code is None or not (code[0] == 0xE9 or code[:2] == b"\xff\x25"):
            return None
        operand = int.from_bytes(code[1:5] if code[0] == 0xE9 else code[2:6], "little", signed=True)
        if code[0] == 0xE9:
            return address + 5 + operand
        is_relative = self._view.arch == "x64"
        return self._pointer(address + 6 + operand if is_relative else operand & 0xFFFFFFFF)

    def _is_context_ip(self, at: int) -> bool:
        is_x64 = self._view.arch == "x64"
        start = at - (_X64_CONTEXT_RIP if is_x64 else _X86_CONTEXT_EIP)
        flags = self._view.space.try_integer(start + (_X64_CONTEXT_FLAGS if is_x64 else 0), 4) or 0
        machine = _CONTEXT_AMD64 if is_x64 else _CONTEXT_I386
        return flags & machine == machine and flags & ~(machine | _CONTEXT_PARTS) == 0 and flags & 1 == 1

    def _is_exception_address(self, at: int) -> bool:
        """EXCEPTION_RECORD: code, flags, chained record, address, number of parameters (winnt.h)."""
        space, pointer = self._view.space, self._view.pointer_bytes
        start = at - 8 - pointer
        code, flags = space.try_integer(start, 4), space.try_integer(start + 4, 4)
        chained, parameters = space.try_integer(start + 8, pointer), space.try_integer(at + pointer, 4)
        if code is None or flags is None or parameters is None:
            return False
        return code >> 30 >= 2 and flags < 0x100 and chained == 0 and parameters <= _MOST_PARAMETERS
