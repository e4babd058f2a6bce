"""One module in depth: headers, version texts, sections, imports with their targets, exports, texts, hooks."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from heapdump.analyses.by_hand.expressions import Expressions
from heapdump.analyses.by_hand.hooks import (
    MEMORY_FUNCTIONS,
    ImportState,
    InlineHook,
    import_states,
    inline_hooks,
)
from heapdump.analyses.by_hand.images import ImageText, texts_of, unlisted_images
from heapdump.errors import WrongUsage
from heapdump.process.model import Module, Process
from heapdump.process.symbols.images import Image, ImageSection
from heapdump.process.symbols.namer import Namer

MACHINES = {0x14C: "x86", 0x8664: "x64", 0xAA64: "arm64", 0x1C0: "arm"}
SUBSYSTEMS = {1: "native", 2: "GUI", 3: "console", 9: "Windows CE", 10: "EFI application"}
_CHARACTERISTICS = {
    0x2: "executable",
    0x20: "large address aware",
    0x100: "32-bit",
    0x2000: "DLL",
    0x1: "no relocations",
}
_DLL_CHARACTERISTICS = {
    0x20: "high entropy VA", 0x40: "ASLR", 0x80: "forced integrity", 0x100: "DEP", 0x400: "no SEH",
    0x1000: "app container", 0x4000: "CFG", 0x8000: "terminal server aware",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Export:
    """An export.

    Attributes:
        name: its name.
        address: of its code or data; None for a forwarded one.
        forwarder: `NTDLL.RtlAllocateHeap` for a forwarded one; "" for others.
    """

    name: str
    address: int | None
    forwarder: str


@dataclass(frozen=True)
class ModuleDetail:
    """A module and its image.

    Attributes:
        process: the process.
        namer: names addresses.
        module: the module.
        image: its image; None where neither dump nor image path has its headers.
        is_listed: True where the dump's module list names it.
    """

    process: Process
    namer: Namer
    module: Module
    image: Image | None
    is_listed: bool

    @cached_property
    def imports(self) -> list[ImportState]:
        """Every import with its target."""
        return import_states(self.process, self.namer, self.module, self.image) if self.image else []

    def memory_imports(self) -> list[ImportState]:
        """Imports of functions that allocate, map, protect or load."""
        return [one for one in self.imports if MEMORY_FUNCTIONS.match(one.entry.name)]

    @cached_property
    def exports(self) -> list[Export]:
        """Every named export, by address, then the forwarded ones."""
        if self.image is None:
            return []
        base, own = self.module.span.start, self.image.exports
        named = [Export(name, base + rva, "") for name, rva in zip(own.names, own.rva.tolist(), strict=True)]
        return [*named, *(Export(name, None, target) for name, target in sorted(self.image.forwarders.items()))]

    @property
    def sections(self) -> tuple[ImageSection, ...]:
        """The section table."""
        return self.image.sections if self.image else ()

    @property
    def versions(self) -> dict[str, str]:
        """The texts of the version resource."""
        return self.image.versions if self.image else {}

    def texts(self) -> Iterator[ImageText]:
        """Texts in the memory that the dump holds of it."""
        return texts_of(self.process.space, self.module.span)

    @cached_property
    def inline_hooks(self) -> list[InlineHook]:
        """Exports that begin with a jump out of the module."""
        if self.image is None:
            return []
        file = self.namer.file_of(self.module)
        return list(inline_hooks(self.process, self.namer, self.module, self.image, file))

    @property
    def unreadable_tables(self) -> list[str]:
        """Names of tables that the headers name and neither the dump nor a file holds."""
        return self.image.unreadable_tables if self.image else []

    @property
    def import_hooks(self) -> list[ImportState]:
        """Imports whose slot points outside of the named DLL."""
        return [one for one in self.imports if one.is_hook]

    @property
    def characteristics(self) -> list[str]:
        """The characteristics of the headers in words: `DLL`, `ASLR`, `CFG` …."""
        if self.image is None:
            return []
        own = self.image.headers
        words = [word for bit, word in _CHARACTERISTICS.items() if own.characteristics & bit]
        return [*words, *(word for bit, word in _DLL_CHARACTERISTICS.items() if own.dll_characteristics & bit)]


def every_module(process: Process, namer: Namer) -> list[ModuleDetail]:
    """The listed modules in their order, then images that no list names."""
    listed = [ModuleDetail(process, namer, one, namer.image(one), is_listed=True) for one in process.modules]
    others = [ModuleDetail(process, namer, one, image, is_listed=False) for one, image in unlisted_images(process)]
    return [*listed, *others]


@dataclass(frozen=True, slots=True)
class HookGroup:
    """Hooks of one module that lead into the same module.

    Attributes:
        module: the module whose functions are hooked.
        owner: the module that the hooks lead into; None for memory in no module.
        functions: the hooked functions: imports in the order of their slots, then exports.
    """

    module: Module
    owner: Module | None
    functions: tuple[str, ...]


def hook_groups(modules: Sequence[ModuleDetail]) -> list[HookGroup]:
    """The hooks of all modules by module and where they lead, most hooks first."""
    groups: dict[tuple[int, int], list[str]] = {}
    ends: dict[tuple[int, int], tuple[Module, Module | None]] = {}
    for one in modules:
        found = [(state.owner, state.entry.name) for state in one.import_hooks]
        found += [(one.process.module_map.at(hook.target), hook.function) for hook in one.inline_hooks]
        for owner, function in found:
            key = one.module.span.start, owner.span.start if owner else -1
            ends[key] = one.module, owner
            groups.setdefault(key, []).append(function)
    made = [HookGroup(*ends[key], tuple(functions)) for key, functions in groups.items()]
    return sorted(made, key=lambda group: -len(group.functions))


def modules_named(modules: Sequence[ModuleDetail], expressions: Expressions, name: str) -> list[ModuleDetail]:
    """The modules that a name means: `ntdll`, `ntdll.dll`; else the one that holds the address of an expression.

    Raises:
        WrongUsage: there is none.
    """
    lower = name.lower()
    found = [one for one in modules if lower in (one.module.name.lower(), one.module.name.lower().rpartition(".")[0])]
    if found:
        return found
    try:
        address = expressions.value(name)
    except WrongUsage:
        address = None
    found = [one for one in modules if address is not None and address in one.module.span]
    if not found:
        near = difflib.get_close_matches(lower, [one.module.name.lower() for one in modules], 3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise WrongUsage(f"no module {name!r}{hint}; heapdump modules lists those that there are")
    return found
