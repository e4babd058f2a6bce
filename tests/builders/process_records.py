"""Threads, images, heaps and memory of a process in the making.

In: calls of `ProcessBuilder`. Out: the same, for `ProcessAssembler`. Layouts are restated by hand elsewhere
in this package on purpose; this module knows none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .dump_truth import Pdb, Version
from .image_header import ImageFacts
from .process_plan import Plan, ProcessArch

View = Literal["x64", "x86"]
RegionRow = tuple[int, int, str, str, int, int, int]
"""(base, size, state, type, protect, allocation base, allocation protect)."""


@dataclass(frozen=True)
class ThreadPart:
    """A thread; its stack is committed in [stack[0], stack[1]) and reserved from `bottom`."""

    tid: int
    stack: tuple[int, int]
    bottom: int
    ip: int
    sp: int
    registers: tuple[tuple[str, int], ...]
    content: bytes


@dataclass(frozen=True)
class ModulePart:
    """A loaded image."""

    base: int
    size: int
    path: str
    arch: View
    version: Version | None
    timestamp: int
    checksum: int
    pdb: Pdb | None
    facts: ImageFacts = field(default_factory=ImageFacts)


@dataclass
class ProcessParts:
    """Everything the process consists of; memory is (address, bytes) or (address, size of zeros)."""

    arch: ProcessArch
    plan: Plan
    os: tuple[int, int, int]
    version: Version
    pid: int
    global_flag: int
    exe: str
    command_line: str
    exe_facts: ImageFacts = field(default_factory=ImageFacts)
    heaps: dict[View, list[int]] = field(default_factory=lambda: {"x64": [], "x86": []})
    threads: list[ThreadPart] = field(default_factory=list)
    modules: list[ModulePart] = field(default_factory=list)
    regions: list[RegionRow] = field(default_factory=list)
    memory: list[tuple[int, bytes | int]] = field(default_factory=list)

    @property
    def own_view(self) -> View:
        """Pointer size of the dump itself: that of the 64-bit side of a wow64 process."""
        return "x86" if self.arch == "x86" else "x64"

    def region(
        self,
        base: int,
        size: int,
        *,
        state: str = "MEM_COMMIT",
        type: str = "MEM_PRIVATE",
        protect: int = 0x04,
        allocation_base: int | None = None,
        allocation_protect: int = 0x04,
    ) -> None:
        """Add a row of the memory map."""
        start = base if allocation_base is None else allocation_base
        self.regions.append((base, size, state, type, protect, start, allocation_protect))
