"""Where the members of a segment heap lie, restated by hand for each generation that is built.

In: processor and build. Out: offsets as plain numbers. Nothing of the tool under test is imported: a wrong change of its
layouts must make tests fail rather than agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .nt_heap_layout import HeapArch

CONSTANT = 0xA2E64EADA2E64EAD


@dataclass(frozen=True)
class SegmentLayout:
    """Offsets in bytes; `contexts` None: the heap has one list of segments itself, at `head` with its count at `count`.

    `kinds`: what bits 2 and up of the flags of an LFH and of a VS subsegment are.
    """

    pointer: int
    interceptor: int
    tree: int
    large_pages: tuple[int, int]
    totals: tuple[int, int]
    bounds: tuple[int, ...]
    head: int
    count: int
    context_size: int
    shift: int
    context_heap: int
    contexts: int | None
    unused: tuple[int, int]
    extra: int
    flags: int
    units: int
    vs_size: int
    vs_mark: int
    vs_first: int
    lfh_free: int | None
    lfh_count: int
    lfh_offsets: int
    lfh_commit: tuple[int, int]
    bitmap: int
    kinds: tuple[int, int] = (2, 3)

    @property
    def granule(self) -> int:
        """Bytes of a chunk header."""
        return 2 * self.pointer

    @property
    def descriptor(self) -> int:
        """Bytes of a page-range descriptor."""
        return 4 * self.pointer


_X64 = SegmentLayout(
    pointer=8, interceptor=0x18, tree=0x48, large_pages=(0x58, 0x60), totals=(0x80, 0x88), bounds=(0xE8, 0xF0, 0xF8),
    head=0x48, count=0x58, context_size=0xC0, shift=8, context_heap=0x38, contexts=0x100, unused=(4, 4), extra=8, flags=0x18,
    units=0x1F, vs_size=0x20, vs_mark=0x22, vs_first=0x30, lfh_free=0x20, lfh_count=0x22, lfh_offsets=0x28,
    lfh_commit=(0x2D, 0x2E), bitmap=0x30,
)  # fmt: skip
_X86 = SegmentLayout(
    pointer=4, interceptor=0x10, tree=0x44, large_pages=(0x4C, 0x50), totals=(0x80, 0x84), bounds=(0xB8, 0xBC, 0xC0),
    head=0x44, count=0x4C, context_size=0x80, shift=4, context_heap=0x24, contexts=0x100, unused=(4, 4), extra=8, flags=0xC,
    units=0xF, vs_size=0x14, vs_mark=0x16, vs_first=0x18, lfh_free=0x10, lfh_count=0x12, lfh_offsets=0x18,
    lfh_commit=(0x1D, 0x1E), bitmap=0x20,
)  # fmt: skip
_LAYOUTS: dict[tuple[HeapArch, int], SegmentLayout] = {
    ("x64", 14393): replace(
        _X64, interceptor=0x20, tree=0x38, large_pages=(0x48, 0x50), totals=(0, 8), bounds=(0x98, 0xA0, 0xA8), head=0x60,
        count=0x70, contexts=None, unused=(6, 2), extra=4, units=0x1B,
    ),
    ("x64", 16299): replace(
        _X64, interceptor=0x38, tree=0x50, large_pages=(0x60, 0x68), totals=(0x18, 0x20), bounds=(0x150, 0x158, 0x160),
        head=0x20, count=0x30, context_size=0x68, context_heap=0x60, contexts=0x70, kinds=(1, 2),
    ),
    ("x64", 19041): _X64,
    ("x64", 22000): replace(_X64, bounds=(0xE8, 0xF0, 0xF8, 0x100), contexts=0x140),
    ("x64", 26100): replace(
        _X64, bounds=(0xF0, 0xF8, 0x100, 0x108), contexts=0x140, vs_mark=0x24, lfh_free=None, lfh_commit=(0x27, 0x18), bitmap=0x40,
    ),
    ("x86", 14393): replace(
        _X86, interceptor=0x14, tree=0x24, large_pages=(0x2C, 0x30), totals=(0, 4), bounds=(0x54, 0x58, 0x5C), head=0x38,
        count=0x40, contexts=None, unused=(6, 2), extra=4,
    ),
    ("x86", 19041): _X86,
}  # fmt: skip
GENERATIONS: tuple[tuple[HeapArch, int], ...] = tuple(_LAYOUTS)
"""What can be built."""


def served_sizes(block: int, granule: int) -> tuple[int, int]:
    """[least, end) of the sizes of requests that an LFH block of `block` bytes serves; bytes, padding included.

    The sizes of LFH blocks lie a granule apart, or a sixteenth of the power of two below them where that is more.
    """
    step = max(granule, (1 << (block - 1).bit_length() - 1) // 16)
    return block - step + (block > step), block + 1


def segment_layout(arch: HeapArch, build: int) -> SegmentLayout:
    """The offsets of one generation.

    Raises:
        ValueError: it is not built.
    """
    if (arch, build) not in _LAYOUTS:
        raise ValueError(f"no segment heap of {arch} {build} is built")
    return _LAYOUTS[arch, build]
