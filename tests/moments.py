"""Built dumps of one program at several moments, with the truth about its blocks: for comparisons.

In: `Moment`s. Out: dumps whose blocks have recorded stacks. A stack is a list of places in modules by name, so that the
same stack can lie at other addresses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.process.stacks.test_trace_database import RECORDS, UST, record

Stack = tuple[tuple[str, int], ...]
"""(module, offset), innermost first."""

MODULES = {"msvcrt.dll": 0x66000000, "vision.dll": 0x67000000, "mymalloc.dll": 0x68000000}
LOAD: Stack = (("msvcrt.dll", 0x1234), ("mymalloc.dll", 0x3020), ("vision.dll", 0x2200), ("vision.dll", 0x2900))
RUN: Stack = (("msvcrt.dll", 0x1234), ("mymalloc.dll", 0x3000), ("vision.dll", 0x2010), ("vision.dll", 0x2900))
STOP: Stack = (("msvcrt.dll", 0x1234), ("vision.dll", 0x2F00), ("vision.dll", 0x2900))
NONE: Stack = ()
HEAP = 0x20000000000


@dataclass(frozen=True)
class Moment:
    """The program at one moment. `blocks`: stack → requested sizes; `builds`: module → time stamp, where it is another."""

    blocks: Mapping[Stack, Sequence[int]]
    modules: Mapping[str, int] = field(default_factory=lambda: MODULES)
    builds: Mapping[str, int] = field(default_factory=dict)
    heap: int = HEAP
    pid: int = 4242
    create_time: int = 1_699_990_000
    timestamp: int = 1_700_000_000
    exe: str = "C:\\acme\\app.exe"
    records_stacks: bool = True

    def process(self) -> ProcessBuilder:
        """The process, to be extended or written."""
        heap = NtHeapBuilder(base=self.heap, flags=UST if self.records_stacks else 0x2)
        stacks = [stack for stack in self.blocks if stack]
        for stack, sizes in self.blocks.items():
            for size in sizes:
                traced = self.records_stacks and stack
                heap.busy(size, trace=RECORDS + 0x100 * stacks.index(stack) if traced else 0)
        made = ProcessBuilder(pid=self.pid, create_time=self.create_time, timestamp=self.timestamp, exe=self.exe)
        made.heap(heap.build())
        for name, base in self.modules.items():
            made.module(base, 0x10000, rf"C:\acme\{name}", timestamp=self.builds.get(name, 0x5F000000))
        frames = [tuple(self.modules[name] + offset for name, offset in stack) for stack in stacks]
        data = b"".join(record("x64", stack).ljust(0x100, b"\0") for stack in frames)
        size = max(0x1000, -(-len(data) // 0x1000) * 0x1000)
        return made.region(RECORDS, size).memory(RECORDS, data.ljust(size, b"\0"))

    def write(self, path: Path) -> str:
        """Writes the dump; its path as text."""
        self.process().write(path)
        return str(path)

    def amounts(self) -> dict[Stack, tuple[int, int]]:
        """Stack → (blocks, requested bytes)."""
        return {stack: (len(sizes), sum(sizes)) for stack, sizes in self.blocks.items() if sizes}

    def by_size(self) -> dict[int, tuple[int, int]]:
        """Requested size → (blocks, requested bytes)."""
        counts = Counter(size for sizes in self.blocks.values() for size in sizes)
        return {size: (count, size * count) for size, count in counts.items()}

    @property
    def bytes(self) -> int:
        """Requested bytes of all blocks."""
        return sum(map(sum, self.blocks.values()))
