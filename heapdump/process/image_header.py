"""Flags of the program's own image header (IMAGE_FILE_HEADER.Characteristics), as it lies in memory."""

from __future__ import annotations

from heapdump.process.model import Process

_PE = 0x00004550
_LARGE_ADDRESS_AWARE = 0x20
_MOST_HEADER_BYTES = 0x1000


def is_large_address_aware(process: Process) -> bool | None:
    """True for a program whose 32-bit address space may exceed 2 GB; None where its header is not in the dump."""
    space, base = process.space, _image_base(process)
    at = space.try_integer(base + 0x3C, 4) if base is not None else None
    if base is None or at is None or at > _MOST_HEADER_BYTES or space.try_integer(base + at, 4) != _PE:
        return None
    flags = space.try_integer(base + at + 4 + 18, 2)
    return None if flags is None else bool(flags & _LARGE_ADDRESS_AWARE)


def _image_base(process: Process) -> int | None:
    """Where the program's own image lies: by the PEB of the narrowest view, else by its name in the module list."""
    for view in reversed(process.views):
        if base := view.peb_fields.get("ImageBaseAddress"):
            return base
    name = (process.image or "").rpartition("\\")[2].lower()
    return next((module.span.start for module in process.modules if module.name.lower() == name), None)
