"""Views of a process: TEBs → PEB → heap list, for each pointer size.

A TEB counts when its `Self` member holds its own address and it has a PEB pointer. The PEB is the address that most of
these TEBs point to. Under WOW64 the 32-bit TEB lies at TEB64 + WowTebOffset (from 10240), at TEB64 + 0x2000, or at the
first pointer of the 64-bit TEB (before 10240); `Self` must confirm each place (heap-structures.md §1.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from heapdump import layouts
from heapdump.dump.streams import ThreadRecord
from heapdump.layouts import Layout
from heapdump.memory.space import AddressSpace
from heapdump.process.heap_list import heap_list
from heapdump.process.model import Arch, Teb, View
from heapdump.process.version import WindowsVersion
from heapdump.spans import Span

_CLASSIC_WOW_OFFSET = 0x2000
_PAGE = 0x1000


def teb_size(arch: Arch) -> int:
    """Bytes of a TEB in whole pages: 2 pages for the 64-bit one (0x1838 bytes at most), 1 for the 32-bit one."""
    return 2 * _PAGE if arch == "x64" else _PAGE


def is_teb(space: AddressSpace, layout: Layout, address: int) -> bool:
    """True when a TEB of this pointer size lies at the address: `NtTib.Self` names it and it has a PEB.

    A page with `Self` alone is no TEB: the recorded 32-bit processes of 19041 have one where the 64-bit TEB would be.
    """
    if address <= 0 or space.try_pointer(address + layout["_NT_TIB"].offset("Self")) != address:
        return False
    return bool(space.try_pointer(address + layout["_TEB"].offset("ProcessEnvironmentBlock")))


def wow_tebs(space: AddressSpace, layout64: Layout, layout32: Layout, teb64: int) -> int | None:
    """The 32-bit TEB behind a 64-bit one, or None."""
    places = [teb64 + _CLASSIC_WOW_OFFSET]
    if "WowTebOffset" in layout64["_TEB"]:
        raw = space.try_read(teb64 + layout64["_TEB"].offset("WowTebOffset"), 4)
        places.insert(0, teb64 + int.from_bytes(raw or b"", "little", signed=True))
    first = space.with_pointers(8).try_pointer(teb64)
    places.append(first or 0)
    narrow = space.with_pointers(4)
    return next((place for place in places if place != teb64 and is_teb(narrow, layout32, place)), None)


def thread_tebs(
    arch: Arch, space: AddressSpace, layout64: Layout, layout32: Layout, threads: Iterable[ThreadRecord]
) -> dict[int, tuple[Teb, ...]]:
    """Thread id → its confirmed TEBs, the one of the dump's own pointer size first."""
    wide, narrow = space.with_pointers(8), space.with_pointers(4)
    out: dict[int, tuple[Teb, ...]] = {}
    for thread in threads:
        found: list[Teb] = []
        if arch == "x64" and is_teb(wide, layout64, thread.teb):
            found.append(Teb("x64", thread.teb, teb_size("x64")))
            other = wow_tebs(space, layout64, layout32, thread.teb)
            found += [Teb("x86", other, teb_size("x86"))] if other else []
        elif arch == "x86" and is_teb(narrow, layout32, thread.teb):
            found.append(Teb("x86", thread.teb, teb_size("x86")))
            # a WOW64 process dumped by a 32-bit program with full memory: its 64-bit half is there all the same
            if is_teb(wide, layout64, thread.teb - _CLASSIC_WOW_OFFSET):
                found.append(Teb("x64", thread.teb - _CLASSIC_WOW_OFFSET, teb_size("x64")))
        out[thread.id] = tuple(found)
    return out


def read_view(
    arch: Arch,
    space: AddressSpace,
    windows: WindowsVersion,
    tebs: Sequence[Teb],
    ntdlls: Sequence[Span],
    gaps: list[str],
) -> View:
    """The view of one pointer size. `gaps` gets a line for each structure that is not in the dump."""
    space = space.with_pointers(8 if arch == "x64" else 4)
    names = layouts.candidates(arch, windows.build, windows.revision)
    layout = layouts.load(names[0])
    pointer_at = layout["_TEB"].offset("ProcessEnvironmentBlock")
    pebs = Counter(space.try_pointer(teb.address + pointer_at) for teb in tebs if teb.view == arch)
    pebs.pop(None, None)
    peb = pebs.most_common(1)[0][0] if pebs else None
    fields: dict[str, int] = {}
    if peb is None:
        gaps.append(f"no {arch} TEB is in the dump, so the PEB and its heap list are not known")
    else:
        fields = _peb_fields(space, layout, peb)
        if "ProcessHeaps" not in fields:
            gaps.append(f"the {arch} PEB at {peb:#x} is not in the dump, so the heap list is not known")
    heaps, complete = heap_list(space, fields, ntdlls, windows.build, gaps)
    exact = layout.covers(windows.build, windows.revision)
    return View(arch, space, layout, names, exact, peb, fields, heaps, complete)


def _peb_fields(space: AddressSpace, layout: Layout, peb: int) -> dict[str, int]:
    """Member → value of the PEB, for the members whose bytes are in the dump."""
    struct = layout["_PEB"]
    sizes = range(struct.size, 0, -8)  # a small dump may end inside the PEB
    data = next((found for size in sizes if (found := space.try_read(peb, size)) is not None), b"")
    return struct.decode(data, space.pointer_bytes)
