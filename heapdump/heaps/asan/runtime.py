"""The AddressSanitizer runtime: a module that exports `__asan_init`, and the base of its shadow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.process.model import Module, Process, View
from heapdump.process.symbols.images import Image, open_image
from heapdump.spans import Span

_ENTRY_POINT = "__asan_init"
_SHADOW_VARIABLE = "__asan_shadow_memory_dynamic_address"
_SHADOW_ACCESSOR = "__asan_get_shadow_memory_dynamic_address"
_X86_SHADOW = 0x30000000
"""The fixed address of the shadow in 32-bit programs (LLVM: asan_mapping.h)."""

_LOAD_RIP_RELATIVE = b"\x48\x8b\x05"  # mov rax, [rip + 32-bit offset]
_ACCESSOR_BYTES = 32
_SHADOW_ALIGNMENT = 0x10000
_USER_SPACE = {8: 1 << 47, 4: 1 << 32}
"""Pointer size → bytes of address space that have a shadow."""


@dataclass(frozen=True, slots=True)
class AsanRuntime:
    """The runtime in one module.

    Attributes:
        address: base address of the module.
        shadow: base of the shadow: the shadow byte of address a lies at `shadow + (a >> 3)`.
        pointer_bytes: 4 or 8.
    """

    address: int
    shadow: int
    pointer_bytes: int

    @property
    def shadow_span(self) -> Span:
        """The addresses of the shadow of all user memory."""
        return Span(self.shadow, self.shadow + (_USER_SPACE[self.pointer_bytes] >> 3))


def runtime_candidates(process: Process, view: View) -> Iterator[int]:
    """Base addresses of modules that may contain the runtime: those with its name, and the program.

    A program with the static runtime exports its functions, so that the program's DLLs find them.
    """
    for module in process.modules:
        name = module.name.lower()
        if ("asan" in name or name.endswith(".exe")) and runtime_at(view, module.span.start) is not None:
            yield module.span.start


def runtime_at(view: View, address: int) -> AsanRuntime | None:
    """The runtime in the image at an address; None where no image lies there or it does not export the runtime."""
    size = _image_bytes(view, address)
    if size is None:
        return None
    module = Module("", "", Span(address, address + size), None, 0, 0, None)
    image = open_image(view.space, module, None)
    if image is None or image.is_x64 != (view.pointer_bytes == 8):
        return None
    exports = dict(zip(image.exports.names, image.exports.rva.tolist(), strict=True))
    if _ENTRY_POINT not in exports:
        return None
    shadow = _shadow(view, address, exports, image)
    return None if shadow is None else AsanRuntime(address, shadow, view.pointer_bytes)


def _image_bytes(view: View, address: int) -> int | None:
    """SizeOfImage of the image at an address (IMAGE_NT_HEADERS + 0x50); None where no image begins there."""
    space = view.space
    if space.try_read(address, 2) != b"MZ":
        return None
    headers = space.try_integer(address + 0x3C, 4)
    if headers is None or headers > 0x1000 or space.try_read(address + headers, 4) != b"PE\0\0":
        return None
    return space.try_integer(address + headers + 0x50, 4)


def _shadow(view: View, address: int, exports: dict[str, int], image: Image) -> int | None:
    """The base of the shadow: the exported variable, else the variable that the exported accessor loads."""
    if view.pointer_bytes == 4:
        return _X86_SHADOW
    variables = []
    if _SHADOW_VARIABLE in exports:
        variables.append(address + exports[_SHADOW_VARIABLE])
    if _SHADOW_ACCESSOR in exports:
        start = exports[_SHADOW_ACCESSOR]
        code = image.read(start, _ACCESSOR_BYTES) or b""
        at = code.find(_LOAD_RIP_RELATIVE)
        if 0 <= at <= len(code) - 7:
            variables.append(address + start + at + 7 + int.from_bytes(code[at + 3 : at + 7], "little", signed=True))
    values = (view.space.try_pointer(variable) for variable in variables)
    good = (value for value in values if value and not value % _SHADOW_ALIGNMENT)
    return next((value for value in good if value < _USER_SPACE[8]), None)
