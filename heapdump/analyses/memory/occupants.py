"""Why an allocation lies where it lies: image away from its preferred base, stack, heap, hook, private memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from heapdump.analyses.memory.allocations import Allocations, VirtualAllocation
from heapdump.analyses.memory.hooks import Hook, hook_in
from heapdump.analyses.memory.memory_imports import memory_imports
from heapdump.analyses.memory.usage import UsageKind
from heapdump.memory.regions import Kind
from heapdump.process.model import Module, Process
from heapdump.process.symbols.images import file_image, open_image
from heapdump.process.symbols.namer import Namer
from heapdump.process.symbols.store import SymbolStores
from heapdump.spans import Span


class Reason(StrEnum):
    """Why an allocation lies at its place; the value is the word of the JSON."""

    MOVED_IMAGE = "moved_image"
    RANDOMISED_IMAGE = "randomised_image"
    FIXED_IMAGE = "fixed_image"
    STACK = "stack"
    HEAP = "heap"
    HOOK = "hook"
    MAPPED = "mapped"
    SYSTEM = "system"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """The place of an image.

    Attributes:
        preferred: base that it was linked for; None where the dump does not tell.
        holders: allocations that lie there, where the image is loaded elsewhere.
        memory_imports: functions that it imports and that reserve address space, change pages or load images.
    """

    preferred: int | None
    holders: tuple[VirtualAllocation, ...]
    memory_imports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Occupant:
    """An allocation with the reason for its place.

    Attributes:
        allocation: the allocation.
        reason: the reason.
        image: place of an image; None for other memory.
        hook: hook whose trampolines it holds; None for other memory.
        start: name of the start address of the thread whose stack it is; "" for other memory.
        referrers: addresses of the first words that point into private memory; () where they were not searched for.
        has_more_referrers: True where there are more of them; None where they were not searched for.
    """

    allocation: VirtualAllocation
    reason: Reason
    image: ImagePlace | None = None
    hook: Hook | None = None
    start: str = ""
    referrers: tuple[int, ...] = ()
    has_more_referrers: bool | None = None


class Occupants:
    """Finds the reasons of allocations of one process."""

    def __init__(self, process: Process, allocations: Allocations, namer: Namer, images: SymbolStores | None) -> None:
        """`images`: stores of image files, whose headers have the preferred bases."""
        self._process, self._allocations, self._namer, self._images = process, allocations, namer, images

    def of(self, allocation: VirtualAllocation) -> Occupant:
        """The reason of one allocation; pointers to it are not searched for."""
        kind = allocation.kind
        if kind is UsageKind.IMAGE:
            return self._image(allocation)
        if kind is UsageKind.STACK:
            return Occupant(allocation, Reason.STACK, start=self._thread_start(allocation))
        if kind in (UsageKind.HEAP, UsageKind.PAGE_HEAP):
            return Occupant(allocation, Reason.HEAP)
        if kind in (UsageKind.TEB, UsageKind.PEB, UsageKind.OTHER):
            return Occupant(allocation, Reason.SYSTEM)
        if allocation.type is Kind.MEM_MAPPED:
            return Occupant(allocation, Reason.MAPPED)
        hook = hook_in(self._process, allocation, self._namer)
        return Occupant(allocation, Reason.HOOK if hook else Reason.PRIVATE, hook=hook)

    def _image(self, allocation: VirtualAllocation) -> Occupant:
        module = self._process.module_map.at(allocation.span.start)
        if module is None:
            return Occupant(allocation, Reason.FIXED_IMAGE, ImagePlace(None, (), ()))
        image = open_image(self._process.space, module, self._images)
        if image is None:
            return Occupant(allocation, Reason.FIXED_IMAGE, ImagePlace(None, (), ()))
        preferred = self._preferred(module, image.header_base)
        moved = preferred is not None and preferred != module.span.start
        holders: tuple[VirtualAllocation, ...] = ()
        if preferred is not None and moved:
            place = Span(preferred, preferred + module.span.size)
            holders = tuple(one for one in self._allocations.inside(place) if one.span != allocation.span)
        found = ImagePlace(preferred, holders, memory_imports(self._process, module, self._images))
        if image.has_dynamic_base:
            return Occupant(allocation, Reason.RANDOMISED_IMAGE, found)
        return Occupant(allocation, Reason.MOVED_IMAGE if moved else Reason.FIXED_IMAGE, found)

    def _preferred(self, module: Module, header_base: int) -> int | None:
        """ImageBase of the file, else of the header in memory; None for 0, which no linker writes.

        Since Vista the header in memory has the actual base. It proves that the image was moved, not that it was not.
        """
        file = file_image(module, self._images) if self._images else None
        base = file.header_base if file is not None else header_base
        return base or None

    def _thread_start(self, allocation: VirtualAllocation) -> str:
        """The start address of the thread whose stack it is, named."""
        for thread in self._process.threads:
            if any(stack.limit in allocation.span or stack.base - 1 in allocation.span for stack in thread.stacks):
                return str(self._namer.name(thread.start_address, 0)) if thread.start_address else ""
        return ""
