"""The imported functions of a module that place memory: what a new DLL can do to the address space."""

from __future__ import annotations

import re

from heapdump.process.model import Module, Process
from heapdump.process.symbols.images import open_image
from heapdump.process.symbols.store import SymbolStores

_PLACES_MEMORY = re.compile(
    r"Virtual(?:Alloc|Protect|Free)\w*|(?:Nt|Zw)(?:Allocate|Protect|Free|Write)VirtualMemory\w*"
    r"|(?:Nt|Zw)MapViewOfSection\w*|MapViewOfFile\w*|CreateFileMapping\w*|AllocateUserPhysicalPages\w*"
    r"|HeapCreate|RtlCreateHeap|LoadLibrary\w*|LdrLoadDll|WriteProcessMemory|SetWindowsHookEx[AW]"
)
"""Functions that reserve address space, map files, change pages, load images or hook other code."""


def memory_imports(process: Process, module: Module, images: SymbolStores | None) -> tuple[str, ...]:
    """Names of imported functions that reserve, map or change memory, each once, in the order of the import table.

    Empty where the import table is not known.
    """
    image = open_image(process.space, module, images)
    names = (one.name for one in image.imports) if image else ()
    return tuple(dict.fromkeys(name for name in names if _PLACES_MEMORY.fullmatch(name)))
