"""Modules of several dumps: new, gone, moved to another base, replaced by another version."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from heapdump.analyses.compare.code_names import build_of
from heapdump.analyses.memory.allocations import Allocations, VirtualAllocation
from heapdump.analyses.memory.memory_imports import memory_imports
from heapdump.analyses.memory.usage import UsageMap
from heapdump.process.model import Module, Process
from heapdump.process.symbols.store import SymbolStores


class ModuleChangeKind(StrEnum):
    """The change of a module; the value is the word of the JSON. VERSION: another build, at whatever base."""

    NEW = "new"
    GONE = "gone"
    MOVED = "moved"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """A module that differs between the first and the last dump.

    Attributes:
        name: of the module.
        change: its change.
        old: the module in the first dump; None if it is new.
        new: the module in the last dump; None if it is gone.
        memory_imports: of a new module, imported functions that reserve address space, change pages or load images.
        at_old_base: of a moved module, the allocations at its old base in the last dump.
    """

    name: str
    change: ModuleChangeKind
    old: Module | None
    new: Module | None
    memory_imports: tuple[str, ...] = ()
    at_old_base: tuple[VirtualAllocation, ...] = ()

    @property
    def address(self) -> int:
        """The base in the last dump that has the module."""
        module = self.new or self.old
        return module.span.start if module else 0


def explained_changes(
    old: Process, new: UsageMap, images: SymbolStores | None, *, is_address_comparable: bool
) -> tuple[ModuleChange, ...]:
    """The modules that differ, new ones with their imports and moved ones with what lies at their old base.

    `is_address_comparable`: the old base means something in the last dump.
    """
    allocations = Allocations(new)
    return tuple(
        _explained(one, new.process, allocations, images, is_address_comparable=is_address_comparable)
        for one in module_changes(old, new.process)
    )


def _explained(
    change: ModuleChange,
    process: Process,
    allocations: Allocations,
    images: SymbolStores | None,
    *,
    is_address_comparable: bool,
) -> ModuleChange:
    """A change with its explanation."""
    if change.change in (ModuleChangeKind.NEW, ModuleChangeKind.VERSION) and change.new is not None:
        return replace(change, memory_imports=memory_imports(process, change.new, images))
    if change.change is ModuleChangeKind.MOVED and change.old is not None and is_address_comparable:
        return replace(change, at_old_base=tuple(allocations.inside(change.old.span)))
    return change


def module_changes(old: Process, new: Process) -> tuple[ModuleChange, ...]:
    """The modules that differ: new, other versions, moved, gone; of each kind by address.

    Modules are matched by name; several of one name (a WOW64 process has two ntdll) first by build, then by order.
    """
    before, after = _by_name(old.modules), _by_name(new.modules)
    found = (
        change
        for name in dict.fromkeys([*after, *before])
        for change in _changes(before.get(name, []), after.get(name, []))
    )
    order = [ModuleChangeKind.NEW, ModuleChangeKind.VERSION, ModuleChangeKind.MOVED, ModuleChangeKind.GONE]
    return tuple(sorted(found, key=lambda one: (order.index(one.change), one.address)))


def _by_name(modules: Sequence[Module]) -> dict[str, list[Module]]:
    out: dict[str, list[Module]] = defaultdict(list)
    for module in modules:
        out[module.name.lower()].append(module)
    return out


def _changes(before: list[Module], after: list[Module]) -> Iterator[ModuleChange]:
    """The changes of the modules of one name."""
    rest = list(before)
    unmatched = []
    for module in after:
        same = [one for one in rest if build_of(one) == build_of(module)]
        if not same:
            unmatched.append(module)
            continue
        old = next((one for one in same if one.span == module.span), same[0])
        rest.remove(old)
        if old.span.start != module.span.start:
            yield ModuleChange(module.name, ModuleChangeKind.MOVED, old, module)
    for module in unmatched:
        if rest:
            yield ModuleChange(module.name, ModuleChangeKind.VERSION, rest.pop(0), module)
        else:
            yield ModuleChange(module.name, ModuleChangeKind.NEW, None, module)
    for old in rest:
        yield ModuleChange(old.name, ModuleChangeKind.GONE, old, None)
