"""How much of the address space a process may use: 2, 3 or 4 GiB of a 32-bit one."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.process.model import Process
from heapdump.process.symbols.images import open_image
from heapdump.process.symbols.store import SymbolStores

GiB = 1 << 30
_SMALL = 2 * GiB
_LARGEST_32 = 4 * GiB


@dataclass(frozen=True, slots=True)
class AddressLimit:
    """The end of the address space that a program can use.

    Attributes:
        end: first address that the program cannot use; None where the dump does not tell.
        is_32bit: True for a 32-bit program.
        is_large_address_aware: by the header of the program; None where that is not in the dump.
        gain_bytes: addresses that a 32-bit program would gain on 64-bit Windows with IMAGE_FILE_LARGE_ADDRESS_AWARE; 0
            where it has them already.
    """

    end: int | None
    is_32bit: bool
    is_large_address_aware: bool | None
    gain_bytes: int


def address_limit(process: Process, images: SymbolStores | None = None) -> AddressLimit:
    """The limit by the memory map of a dump of one pointer size; of a WOW64 process by the header of its program.

    32-bit processes have 2 GiB, 3 GiB (32-bit Windows with /3GB) or 4 GiB (64-bit Windows); more than 2 GiB only when
    the program is large address aware. The map of a WOW64 process ends at that of the 64-bit half.
    """
    view = process.views[-1]
    aware = _is_aware(process, images)
    top = int(process.regions.end[-1]) if len(process.regions) and process.regions.is_complete_map else None
    if view.arch == "x64":
        return AddressLimit(top, False, aware, 0)
    if process.is_wow64:
        end = None if aware is None else _LARGEST_32 if aware else _SMALL
    else:
        end = None if top is None else next(limit for limit in (2 * GiB, 3 * GiB, 1 << 64) if top <= limit)
        end = end if end is None else min(end, _LARGEST_32)
    gain = _LARGEST_32 - end if end is not None and not aware else 0
    return AddressLimit(end, True, aware, gain)


def _is_aware(process: Process, images: SymbolStores | None) -> bool | None:
    """The bit of the program's header; None without the header."""
    base = process.views[-1].peb_fields.get("ImageBaseAddress")
    module = process.module_map.at(base) if base else None
    image = open_image(process.space, module, images) if module else None
    return None if image is None else image.is_large_address_aware
