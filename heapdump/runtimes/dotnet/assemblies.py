"""The assemblies of a runtime: from its Module structure to the image and its metadata.

The image of a Module is `Module.Base` where the descriptor names that field, else the first word of the Module that
is the base of an image (from 9 on). Before, a Module points to its simple name, and images by that name are looked
for among all images with a CLR header in memory; where several bear the name, the one that the Module leads to by
pointers is it (docs/reference/managed-code.md §3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from heapdump.memory.regions import Kind, State
from heapdump.process.model import Process
from heapdump.runtimes.dotnet.descriptor import Descriptor
from heapdump.runtimes.dotnet.metadata import Metadata, read_metadata
from heapdump.runtimes.dotnet.pe import CLR_HEADER, MappedImage, mapped_image
from heapdump.runtimes.dotnet.structures import Structures

_PAGE = 0x1000
_LARGEST_BUNDLE = 1 << 29
"""Bytes of a mapping whose pages are looked at; a larger one is a data file."""

_MZ = int.from_bytes(b"MZ", "little")
_MODULE_BYTES = 0x200
"""Bytes of a Module in which 9 and later hold the base of the image."""

_MOST_POINTERS, _FIRST_BYTES, _NEXT_BYTES, _DEPTH = 20_000, 0x100, 0xA0, 4
_READ_ONLY = 0x02 | 0x08 | 0x20 | 0x80
"""PAGE_READONLY, PAGE_WRITECOPY, PAGE_EXECUTE_READ, PAGE_EXECUTE_WRITECOPY."""


@dataclass(frozen=True)
class Assembly:
    """An assembly in memory. `name`: its simple name."""

    name: str
    image: MappedImage
    metadata: Metadata


class Assemblies:
    """The assemblies of one process, by the address of the runtime's Module."""

    def __init__(self, process: Process, structures: Structures, descriptor: Descriptor) -> None:
        """Reads nothing yet."""
        self._process, self._space, self._structures = process, structures.space, structures
        self._base_at = descriptor.offset("Module", "Base")
        self.of_module = cache(self._of_module)
        self.at_base = cache(self._read)

    def _of_module(self, module: int) -> Assembly | None:
        """The assembly of a Module; None where there is no Module, or where the dump does not hold its metadata."""
        if self._base_at is not None:
            base = self._space.try_pointer(module + self._base_at)
            found = self.at_base(base) if base and base % _PAGE == 0 else None
            if found is not None:
                return found
        name = self._simple_name(module)
        bases = self._by_name.get(name or "", ())
        if not name:
            bases = tuple(base for base in self._words(module, _MODULE_BYTES) if base in self._all_bases)[:1]
        elif len(bases) > 1:
            bases = tuple(base for base in self._pointed_to(module) if base in bases)[:1] or bases[:1]
        return self.at_base(bases[0]) if bases else None

    def _simple_name(self, module: int) -> str | None:
        place = self._space.try_pointer(module + self._structures.pointer)
        return self._structures.zero_ended(place) if place else None

    def has_name(self, module: int) -> bool:
        """True where a Module may lie: it points to the simple name of an assembly (up to 8)."""
        return self._simple_name(module) in self._by_name

    def _words(self, address: int, size: int) -> list[int]:
        """The words of pointer size in a structure; none where the dump does not hold it."""
        pointer, data = self._structures.pointer, self._space.try_read(address, size) or b""
        return [int.from_bytes(data[i : i + pointer], "little") for i in range(0, len(data), pointer)]

    @cached_property
    def _all_bases(self) -> frozenset[int]:
        return frozenset(base for found in self._by_name.values() for base in found)

    def all(self) -> list[Assembly]:
        """Every assembly that lies in memory, each image once."""
        return [found for base in sorted(self._all_bases) if (found := self.at_base(base)) is not None]

    def _read(self, base: int) -> Assembly | None:
        image = mapped_image(self._space, base)
        if image is None or not image.directory(CLR_HEADER)[0]:
            return None
        for one in (image, replace(image, is_flat=True)):
            metadata = read_metadata(one)
            if metadata is not None and metadata.assembly_name:
                return Assembly(metadata.assembly_name, one, metadata)
        return None

    @cached_property
    def _by_name(self) -> dict[str, tuple[int, ...]]:
        """Simple name → bases of the images in memory that bear it, those that the loader mapped first."""
        out: dict[str, tuple[int, ...]] = {}
        for base in dict.fromkeys(self._bases()):
            found = self.at_base(base)
            if found is not None:
                out[found.name] = (*out.get(found.name, ()), base)
        return out

    def _bases(self) -> Iterator[int]:
        """Where an image may begin: modules, allocations, pages of mapped read-only memory (bundles)."""
        regions = self._process.regions
        yield from (module.span.start for module in self._process.modules)
        committed = regions.state == State.MEM_COMMIT
        first = regions.start == regions.allocation_base
        read_only = (regions.type == Kind.MEM_MAPPED) & (regions.protect & np.uint32(_READ_ONLY) > 0)
        read_only &= regions.size <= np.uint64(_LARGEST_BUNDLE)
        starts = [regions.start[committed & first]]
        edges = zip(regions.start[committed & read_only], regions.end[committed & read_only], strict=True)
        starts += [np.arange(start, end, _PAGE, dtype=np.uint64) for start, end in edges]
        pages = np.unique(np.concatenate(starts)) if starts else np.empty(0, np.uint64)
        signatures, _ = self._space.mapped.gather(pages, 2)
        yield from pages[signatures == _MZ].tolist()

    def _pointed_to(self, module: int) -> Iterator[int]:
        """Page-aligned addresses that a Module leads to, breadth first, four levels deep."""
        queue, seen, budget = deque([(module, 0)]), {module}, _MOST_POINTERS
        while queue and budget > 0:
            address, depth = queue.popleft()
            for value in self._words(address, _NEXT_BYTES if depth else _FIRST_BYTES):
                budget -= 1
                if value % _PAGE == 0 and value:
                    yield value
                elif value > 0xFFFF and value % self._structures.pointer == 0 and value not in seen and depth < _DEPTH:
                    seen.add(value)
                    queue.append((value, depth + 1))
