"""Hooks: import slots that point outside the named DLL, and exports that begin with a jump out of their module.

A slot that points into a DLL of Windows is no hook where that DLL may stand for the named one: API sets and forwarded
exports do so everywhere. Application Verifier and compatibility shims replace slots, too: those are hooks, and the name
of their DLL says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.memory.regions import State
from heapdump.process.model import Module, Process
from heapdump.process.symbols.images import Image
from heapdump.process.symbols.imports import Import
from heapdump.process.symbols.namer import Namer
from heapdump.trust import Trust

_API_SET = re.compile(r"(api|ext)-", re.IGNORECASE)
_SYSTEM = "\\windows\\"
_LOWEST = "ntdll.dll"
"""It forwards nothing to other DLLs."""

_INTERPOSERS = {
    "verifier.dll", "vrfcore.dll", "vfbasics.dll", "vfcompat.dll", "vfluapriv.dll", "vfprint.dll", "vfnet.dll",
    "apphelp.dll", "acgenral.dll", "aclayers.dll", "acspecfc.dll", "acxtrnal.dll",
}  # fmt: skip
"""DLLs of Windows that replace import slots: Application Verifier, page heap, compatibility shims. Nothing is forwarded
to them."""

_ENTRY_BYTES = 16
MEMORY_FUNCTIONS = re.compile(
    r"_?(Heap|Rtl\w*Heap|Virtual(Alloc|Free|Protect|Query|Lock)|(Nt|Zw)(Allocate|Free|Protect|Map|Unmap|Query)VirtualMemory"
    r"|(Nt|Zw)(Map|Unmap|Create|Open)\w*Section|(Unm|M)apViewOfFile|(Create|Open)FileMapping|LoadLibrary|FreeLibrary|LdrLoad"
    r"|LdrUnload|GetProcAddress|LdrGetProcedureAddress|(Global|Local)(Alloc|ReAlloc|Free)|CoTaskMem|Sys(Re)?Alloc|SysFreeString"
    r"|(Read|Write)ProcessMemory|(_aligned_)?(malloc|calloc|realloc|free|recalloc)|\?\?[23_][UV@]|_?(msize|expand|heap)"
    r"|SafeArray(Create|Destroy)|AllocateUserPhysicalPages|MapUserPhysicalPages)\w*.*"
)
"""Functions that allocate, map, protect or load."""


@dataclass(frozen=True, slots=True)
class ImportState:
    """An import and the target of its slot.

    Attributes:
        entry: the import.
        slot: address of the slot in the import address table.
        target: address that the slot holds; None where the dump lacks it.
        name: the target, for a person.
        owner: the module that the target lies in; None for none.
        is_hook: the target lies outside the named DLL and of what may stand for it; None where that is not known.
    """

    entry: Import
    slot: int
    target: int | None
    name: str
    owner: Module | None
    is_hook: bool | None


@dataclass(frozen=True, slots=True)
class InlineHook:
    """An export whose code begins with a jump out of its module.

    Attributes:
        function: its name.
        address: of its code.
        target: address that the jump leads to.
        name: the target, for a person.
        trust: DERIVED where the file of the module has other bytes there, else GUESS.
    """

    function: str
    address: int
    target: int
    name: str
    trust: Trust


def import_states(process: Process, namer: Namer, module: Module, image: Image) -> list[ImportState]:
    """Every import of a module, in the order of its table."""
    judge = _ImportJudge(process, namer, module)
    return [judge.state(one, module.span.start + one.slot, image) for one in image.imports]


class _ImportJudge:
    """Judges slots of one module."""

    def __init__(self, process: Process, namer: Namer, module: Module) -> None:
        self._process, self._namer, self._module = process, namer, module
        self._by_name: dict[str, list[Module]] = {}
        self._exported: dict[Module, set[tuple[str, int]]] = {}
        for one in process.modules:
            self._by_name.setdefault(one.name.lower(), []).append(one)

    def state(self, entry: Import, slot: int, image: Image) -> ImportState:
        """The slot's target and whether it is a hook."""
        pointer = 8 if image.is_x64 else 4
        target = self._process.space.try_integer(slot, pointer)
        if not target:
            return ImportState(entry, slot, target, "", None, None)
        owner = self._process.module_map.at(target)
        name = str(self._namer.name(target, 0))
        return ImportState(entry, slot, target, name, owner, self._is_hook(entry, target, owner))

    def _is_hook(self, entry: Import, target: int, owner: Module | None) -> bool | None:
        if owner is None:
            return True if _is_committed(self._process, target) else None
        if owner is self._module or owner.name.lower() == entry.dll.lower():
            return owner is self._module and not entry.is_delayed
        if entry.dll.lower() == _LOWEST or owner.name.lower() in _INTERPOSERS:
            return True
        if _API_SET.match(entry.dll) and self._exports(owner, entry.name, target):
            return False  # a copy of ucrtbase.dll beside the program, for instance
        named = self._by_name.get(entry.dll.lower(), [])
        is_system = _SYSTEM in owner.path.lower()
        if not named or _API_SET.match(entry.dll):
            return False if is_system else None if not named and not _API_SET.match(entry.dll) else True
        verdicts = [self._forwards(one, entry.name, owner) for one in named]
        if True in verdicts:
            return False
        return (None if is_system else True) if None in verdicts else True

    def _exports(self, module: Module, function: str, address: int) -> bool:
        """True when the module exports a function of that name at the address."""
        if module not in self._exported:
            image = self._namer.image(module)
            own = zip(image.exports.names, image.exports.rva.tolist(), strict=True) if image else ()
            self._exported[module] = {(name, rva) for name, rva in own}
        return (function, address - module.span.start) in self._exported[module]

    def _forwards(self, named: Module, function: str, owner: Module) -> bool | None:
        """True when the named DLL forwards the function to the owner; None where its export table is not there."""
        image = self._namer.image(named)
        if image is None or not (image.exports.names or image.forwarders):
            return None
        target = image.forwarders.get(function)
        if target is None:
            return None if function.startswith("#") else False
        dll = target.rpartition(".")[0].lower()
        return (
            dll == owner.name.lower().rpartition(".")[0] or bool(_API_SET.match(dll)) or _SYSTEM in owner.path.lower()
        )


def inline_hooks(
    process: Process, namer: Namer, module: Module, image: Image, file: Image | None
) -> Iterator[InlineHook]:
    """Exports of a module that begin with a jump out of it. `file`: the image of its file, None where nobody has it."""
    pointer, base = (8 if image.is_x64 else 4), module.span.start
    for rva, function in dict(zip(image.exports.rva.tolist(), image.exports.names, strict=True)).items():
        code = process.space.try_read(base + rva, _ENTRY_BYTES) if image.is_code(rva) else None
        target = _jump(process, code, base + rva, pointer) if code else None
        if target is None or target in module.span or not _is_committed(process, target):
            continue
        original = file.read(rva, len(code or b"")) if file is not None else None
        if original == code:
            continue
        trust = Trust.GUESS if original is None else Trust.DERIVED
        yield InlineHook(function, base + rva, target, str(namer.name(target, 0)), trust)


def _is_committed(process: Process, address: int) -> bool:
    """True for an address in committed memory, by the memory map."""
    i = process.regions.index_at(address)
    return i is not None and process.regions.state[i] == State.MEM_COMMIT


def _jump(process: Process, code: bytes, address: int, pointer: int) -> int | None:
    """The target of a jump that detours write over a function's first bytes; None for other code.

    jmp rel32; jmp [rip+0] with the target behind it; push imm32, ret; mov reg, imm, jmp reg; and the jump before the
    function that `jmp $-5` of a hot patch leads to.
    """
    mask = (1 << 8 * pointer) - 1
    if code[:2] == b"\xeb\xf9":
        code, address = process.space.try_read(address - 5, 5) or b"", address - 5
    if code[:1] == b"\xe9":
        return address + 5 + int.from_bytes(code[1:5], "little", signed=True) & mask
    if pointer == 8:
        if code[:6] == b"\xff\x25\0\0\0\0":
            return int.from_bytes(code[6:14], "little")
        if code[:2] == b"\x48\xb8" and code[10:12] == b"\xff\xe0":
            return int.from_bytes(code[2:10], "little")
        if code[:2] == b"\x49\xbb" and code[10:13] == b"\x41\xff\xe3":
            return int.from_bytes(code[2:10], "little")
        return None
    if code[:1] == b"\x68" and code[5:6] == b"\xc3":
        return int.from_bytes(code[1:5], "little")
    if code[:1] == b"\xb8" and code[5:7] == b"\xff\xe0":
        return int.from_bytes(code[1:5], "little")
    return None
