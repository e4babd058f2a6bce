"""Hook trampolines: small private executable memory whose code jumps into modules.

A hook replaces the first bytes of a function by a jump (E9 rel32, or FF 25 through a pointer) that ends in the hook's
module. The replaced instructions move into the trampoline, which jumps back behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.analyses.memory.allocations import VirtualAllocation
from heapdump.memory.regions import Kind
from heapdump.process.model import Module, Process
from heapdump.process.symbols.namer import Namer

_MOST_BYTES = 1 << 20
_READ = 0x4000
_EXECUTE = 0x10 | 0x20 | 0x40 | 0x80
"""PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY."""

_BACK = 32
"""Bytes before the target of a jump back in which the patched start of the function lies."""

_JUMP, _INDIRECT = b"\xe9", b"\xff\x25"


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook by its trampolines.

    Attributes:
        patched: functions whose first bytes are a jump: `ntdll.dll!NtCreateFile`.
        target: module of the hook; None where no jump leads to one.
        targets: places in modules that the trampolines jump to.
    """

    patched: tuple[str, ...]
    target: str | None
    targets: tuple[str, ...]


def hook_in(process: Process, allocation: VirtualAllocation, namer: Namer) -> Hook | None:
    """The hook whose trampolines lie in an allocation; None for anything else."""
    is_small = allocation.span.size <= _MOST_BYTES
    if allocation.type is not Kind.MEM_PRIVATE or not is_small or not allocation.protect & _EXECUTE:
        return None
    patched: dict[str, None] = {}
    others: dict[str, None] = {}
    modules: dict[str, None] = {}
    for target in _jump_targets(process, allocation):
        module = process.module_map.at(target)
        if module is None:
            continue
        start = _patched_start(process, module, target)
        if start is not None:
            patched.setdefault(str(namer.name(start, 0)))
        else:
            others.setdefault(str(namer.name(target, 0)))
            modules.setdefault(module.name)
    if not patched and not others:
        return None
    return Hook(tuple(patched), next(iter(modules), None), tuple(others))


def _jump_targets(process: Process, allocation: VirtualAllocation) -> Iterator[int]:
    """Targets of the jumps in the first 16 KiB of an allocation, wherever an instruction may begin."""
    view = process.views[-1]
    for offset in range(0, min(allocation.span.size, _READ), 0x1000):
        start = allocation.span.start + offset
        code = view.space.try_read(start, 0x1000)
        if code is not None:
            yield from (
                target for i in range(len(code) - 6) if (target := _target(process, code, i, start)) is not None
            )


def _target(process: Process, code: bytes, i: int, start: int) -> int | None:
    """The target of the jump at byte `i` of `code`, which lies at `start`; None for other instructions."""
    view = process.views[-1]
    mask = (1 << 8 * view.pointer_bytes) - 1
    if code[i : i + 1] == _JUMP:
        return (start + i + 5 + int.from_bytes(code[i + 1 : i + 5], "little", signed=True)) & mask
    if code[i : i + 2] == _INDIRECT:
        value = int.from_bytes(code[i + 2 : i + 6], "little", signed=view.pointer_bytes == 8)
        place = (start + i + 6 + value) & mask if view.pointer_bytes == 8 else value
        return view.space.try_pointer(place)
    return None


def _patched_start(process: Process, module: Module, target: int) -> int | None:
    """The start of the function that a jump leads back into: a jump out of the module stands just before the target."""
    view = process.views[-1]
    for back in range(5, _BACK):
        code = view.space.try_read(target - back, 6)
        if code is None:
            return None
        leads = _target(process, code, 0, target - back)
        if leads is not None and leads not in module.span:
            return target - back
    return None
