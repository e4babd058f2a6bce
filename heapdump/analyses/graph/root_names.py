"""Names places in roots.

Examples: `thread 3 stack rsp+0x40`, `app.exe!.data+0x1230`, with a PDB `app.exe!g_sessions+0x10`,
`thread 3 TLS slot 4`, `Acme.Buffer._handle of 0x…`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.analyses.graph.roots import Area, Register, RootKind, stack_pointers
from heapdump.process.model import Process

if TYPE_CHECKING:
    from heapdump.process.symbols.namer import Namer

_TLS_SLOTS = 64


def register_name(register: Register) -> str:
    """`thread 3 rbx`, `rbx` without a thread in the dump; ` at the exception` for a register of its context."""
    thread = f"thread {register.thread} " if register.thread >= 0 else ""
    return f"{thread}{register.name}{' at the exception' if register.of_exception else ''}"


def place_name(process: Process, namer: Namer, area: Area, address: int) -> str:
    """The name of an address in root memory."""
    if area.kind == RootKind.STACK:
        return _on_stack(process, area, address)
    if area.kind == RootKind.MODULE:
        return _in_module(process, namer, address)
    if area.kind == RootKind.TEB:
        return _in_teb(process, area, address)
    if area.kind == RootKind.PEB:
        return f"PEB+{address - area.span.start:#x}"
    if area.kind == RootKind.MANAGED:
        return namer.code.data(address) or f"managed heap {address:#x}"
    return f"memory {area.span.start:#x}+{address - area.span.start:#x}"


def _on_stack(process: Process, area: Area, address: int) -> str:
    thread = process.threads[area.thread]
    stack = next(stack for stack in thread.stacks if stack.base == area.span.end)
    sp = min(stack_pointers(process, thread, stack), default=None)
    if sp is None:
        return f"thread {area.thread} stack {address:#x}"
    return f"thread {area.thread} stack {'rsp' if stack.view == 'x64' else 'esp'}+{address - sp:#x}"


def _in_module(process: Process, namer: Namer, address: int) -> str:
    module = process.module_map.at(address)
    if module is None:
        return f"image {address:#x}"
    variable = namer.variable_at(address)
    if variable is not None:
        return variable
    rva = address - module.span.start
    image = namer.image(module)
    section = image.section_at(rva) if image else None
    return f"{module.name}!{section[0]}+{rva - section[1]:#x}" if section else f"{module.name}+{rva:#x}"


def _in_teb(process: Process, area: Area, address: int) -> str:
    view = next(view for view in process.views if view.pointer_bytes == area.width)
    slot, rest = divmod(address - area.span.start - view.layout["_TEB"].offset("TlsSlots"), area.width)
    if 0 <= slot < _TLS_SLOTS and not rest:
        return f"thread {area.thread} TLS slot {slot}"
    return f"thread {area.thread} TEB+{address - area.span.start:#x}"
