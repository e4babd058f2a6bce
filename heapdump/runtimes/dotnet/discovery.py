"""The CLR of a process, and where its global variables are.

A module named coreclr.dll, clr.dll or mscorwks.dll; in a single-file app a module that exports `DotNetRuntimeInfo`.
Three sources of globals: the contract descriptor (9 and later), the export `g_dacTable` (5 and later, an array of
pointers to variables), the resource `COREXTERNALDATAACCESSRESOURCE` (up to 3.1, RVAs of variables). A runtime without
any of them is read by the pattern of its code alone (`pattern`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.memory.space import AddressSpace
from heapdump.process.model import Module, Process, View
from heapdump.runtimes.dotnet.descriptor import Descriptor, read_descriptor
from heapdump.runtimes.dotnet.pe import MappedImage, export_rva, mapped_image, named_resource

_NAMES = re.compile(r"coreclr\.dll|clr\.dll|mscorwks\.dll|mscorsvr\.dll", re.IGNORECASE)
_RESOURCES = ("COREXTERNALDATAACCESSRESOURCE", "EXTERNALDATAACCESSRESOURCE", "CLRDATAACCESSRESOURCE")
_MOST_GLOBALS = 1024
_MACHINES = {0x8664: "x64", 0x14C: "x86"}


@dataclass(frozen=True)
class Clr:
    """A CLR of one view. `found_by`: how its module was found, and by what its globals.

    `variables`: addresses of the runtime's variables in the order of its table, 0 for a hole; empty where it has no
    table.
    """

    module: Module
    view: View
    found_by: tuple[str, ...]
    descriptor: Descriptor
    variables: tuple[int, ...]

    @property
    def space(self) -> AddressSpace:
        """The memory, with the pointer size of the runtime."""
        return self.view.space

    @property
    def kind(self) -> str:
        """`.NET`, or `.NET Framework` for clr.dll and mscorwks.dll."""
        name = self.module.name.lower()
        return ".NET Framework" if name.startswith(("clr.", "mscor")) else ".NET"

    @property
    def version(self) -> str | None:
        """The file version of the runtime's module; None for a single-file app, whose module has the application's."""
        if not _NAMES.fullmatch(self.module.name) or self.module.version is None:
            return None
        return ".".join(map(str, self.module.version))


def find_clrs(process: Process) -> Iterator[Clr]:
    """Every CLR of the process. Some reads for each module where none is named."""
    named = [module for module in process.modules if _NAMES.fullmatch(module.name)]
    if named:
        found = [(module, "module") for module in named]
    else:
        found = [(module, "export") for module in process.modules if _is_single_file(process, module)]
    for module, how in found:
        image = mapped_image(process.space, module.span.start)
        arch = _MACHINES.get(image.machine) if image else None
        view = next((view for view in process.views if view.arch == arch or arch is None), None)
        if view is not None:
            yield _clr(module, view, how, image)


def _is_single_file(process: Process, module: Module) -> bool:
    image = mapped_image(process.space, module.span.start)
    return image is not None and export_rva(image, "DotNetRuntimeInfo") is not None


def _clr(module: Module, view: View, how: str, image: MappedImage | None) -> Clr:
    descriptor, found_by = Descriptor(), [how]
    if image is None:
        return Clr(module, view, (how,), descriptor, ())
    at = export_rva(image, "DotNetRuntimeContractDescriptor")
    read = read_descriptor(view.space, module.span.start + at) if at is not None else None
    if read is not None:
        descriptor = read
        found_by.append("contract descriptor")
    variables = _dac_table(view.space, module, image)
    if variables:
        found_by.append("g_dacTable")
    else:
        variables = _dac_resource(module, image)
        found_by += ["DAC resource"] if variables else []
    return Clr(module, view, tuple(found_by), descriptor, variables)


def _dac_table(space: AddressSpace, module: Module, image: MappedImage) -> tuple[int, ...]:
    """The pointers of `g_dacTable`: addresses in the module, up to the first word that is none."""
    at = export_rva(image, "g_dacTable")
    out: list[int] = []
    while at is not None and len(out) < _MOST_GLOBALS:
        found = space.try_pointer(module.span.start + at + space.pointer_bytes * len(out))
        if found is None or (found not in module.span and found):
            break
        out.append(found)
    return tuple(out)


def _dac_resource(module: Module, image: MappedImage) -> tuple[int, ...]:
    """The RVAs of the DAC resource as addresses: u32 globals, u32 vtables, 16 bytes stamp, then the RVAs."""
    for name in _RESOURCES:
        data = named_resource(image, name)
        if data is None or len(data) < 24:
            continue
        words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data) - 3, 4)]
        count = min(words[0], _MOST_GLOBALS)
        return tuple(module.span.start + rva if 0 < rva < module.span.size else 0 for rva in words[6 : 6 + count])
    return ()
