"""Containers of C++ libraries that are members of blocks or of module data, with what they use of their buffers.

In: the pointer graph. Out: `ContainerTable`. Every container has two witnesses: its pointer leads to a block whose size
is exactly its capacity, and what it uses is no more than that; a string begins with a letter and ends in a zero; an
aligned array has the address of its block before it. Releases of Visual C++ (`std::vector`, `std::string`), and
libstdc++ (`std::string`); `containers/buffers.py` finds those of other libraries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.node_places import Integers
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.roots import RootKind
from heapdump.analyses.graph.sweep import Edges
from heapdump.analyses.types.containers import IS_TEXT, IS_WIDE_TEXT
from heapdump.blocks.stored_checks import require_indices, require_length
from heapdump.kernels import container_members, run
from heapdump.kernels.container_flags import MEMBERS
from heapdump.kernels.container_members import containers_of
from heapdump.kernels.source_places import source_places
from heapdump.large_arrays import batches
from heapdump.memory.mapped import MappedMemory
from heapdump.spans import Span

SourcePlaces = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Place of the first word, number in the edges, and words of each source."""

NodeFlags = tuple[NDArray[np.uint8] | None, int]
"""A number of each source, None: all sources are wanted; the bits of which a wanted source has one."""

_NO_MARKS = np.zeros(1, np.uint8)
_ROOM, _MOST_AREAS = 1 << 16, 1 << 24
_WIDE = 2


class Container(IntEnum):
    """A kind of container."""

    VECTOR = container_members.VECTOR
    ALIGNED_VECTOR = container_members.ALIGNED_VECTOR
    STRING = container_members.STRING
    WSTRING = container_members.WSTRING
    GNU_STRING = container_members.GNU_STRING
    GNU_WSTRING = container_members.GNU_WSTRING
    LLVM_STRING = 7
    LLVM_WSTRING = 8
    QSTRING = 9
    QBYTEARRAY = 10
    QVECTOR = 11
    QLIST = 12
    CSTRING = 13
    HASH_MAP = 14
    VEC = 15
    RUST_STRING = 16
    COUNTED = 17
    CARRAY = 18
    VEC_DEQUE = 19

    @property
    def words(self) -> str:
        """Its name in the library."""
        return _WORDS[self]


_WORDS = {
    Container.VECTOR: "std::vector", Container.ALIGNED_VECTOR: "std::vector", Container.STRING: "std::string",
    Container.WSTRING: "std::wstring", Container.GNU_STRING: "std::string (libstdc++)",
    Container.GNU_WSTRING: "std::wstring (libstdc++)", Container.LLVM_STRING: "std::string (libc++)",
    Container.LLVM_WSTRING: "std::wstring (libc++)", Container.QSTRING: "QString", Container.QBYTEARRAY: "QByteArray",
    Container.QVECTOR: "QVector", Container.QLIST: "QList", Container.CSTRING: "CString",
    Container.HASH_MAP: "HashMap (Rust)", Container.VEC: "Vec (Rust)", Container.RUST_STRING: "String (Rust)",
    Container.COUNTED: "array with capacity",
    Container.CARRAY: "CArray (MFC)", Container.VEC_DEQUE: "VecDeque (Rust)",
}  # fmt: skip


@dataclass(frozen=True)
class ContainerTable:
    """c containers of a C++ library, (c,) each.

    Attributes:
        owner: int64 node that the container is a member of; -1 - area for one in a root.
        offset: int64 bytes from the start of the owner to the container's pointer.
        kind: uint8 `Container`.
        buffer: int64 node that holds its elements.
        used: int64 bytes of its elements.
        capacity: int64 bytes that its buffer has for elements.
    """

    owner: NDArray[np.int64]
    offset: NDArray[np.int64]
    kind: NDArray[np.uint8]
    buffer: NDArray[np.int64]
    used: NDArray[np.int64]
    capacity: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of containers."""
        return len(self.owner)

    def take(self, rows: NDArray[Any]) -> ContainerTable:
        """Some of the containers."""
        return ContainerTable(*(getattr(self, name)[rows] for name in _COLUMNS))


def columns_of(found: ContainerTable) -> dict[str, NDArray[Any]]:
    """The containers as columns, which `from_columns` reads."""
    return {name: getattr(found, name) for name in _COLUMNS}


def from_columns(columns: dict[str, NDArray[Any]], nodes: int) -> ContainerTable:
    """The containers that `columns_of` wrote, of a graph of `nodes` nodes.

    Raises:
        ValueError, LookupError: it is not what `columns_of` writes.
    """
    found = ContainerTable(*(columns[name] for name in _COLUMNS))
    for name in _COLUMNS:
        require_length(getattr(found, name), len(found), np.uint8 if name == "kind" else np.int64, name)
    require_indices(found.owner, -_MOST_AREAS, nodes, "owners")
    require_indices(found.buffer, 0, nodes, "buffers")
    require_indices(found.kind, min(Container), max(Container) + 1, "kinds")
    for column in (found.offset, found.used, found.capacity):
        require_indices(column, 0, 1 << 62, "bytes")
    return found


_COLUMNS = ("owner", "offset", "kind", "buffer", "used", "capacity")


def find_containers(
    memory: MappedMemory, graph: PointerGraph, flags: NDArray[np.uint8] | None = None
) -> ContainerTable:
    """The containers in all nodes and in the data of modules. A buffer belongs to the first container, by address.

    Visual C++ and libstdc++ alone. `flags`: of the nodes, see `kernels.container_flags`; None looks at all of them.
    """
    found = _search(memory, graph, graph.edges, (graph.start, graph.size, graph.widths), flags=flags)
    areas, bounds = module_areas(graph)
    globals_ = _search(memory, graph, graph.root_edges, bounds, areas)
    globals_ = ContainerTable(-1 - globals_.owner, *(getattr(globals_, name) for name in _COLUMNS[1:]))
    both = ContainerTable(*(np.concatenate([getattr(found, name), getattr(globals_, name)]) for name in _COLUMNS))
    both = both.take(_is_proven(memory, graph, both))
    memory.forget_all()
    _, first = np.unique(both.buffer, return_index=True)
    return both.take(np.sort(first))


def module_areas(
    graph: PointerGraph,
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """(numbers of the roots that are data of modules, start, size and width of each)."""
    areas = [number for number, area in enumerate(graph.roots.areas) if area.kind is RootKind.MODULE]
    spans = [graph.roots.areas[number] for number in areas]
    bounds = (
        np.array([area.span.start for area in spans], np.int64),
        np.array([area.span.size for area in spans], np.int64),
        np.array([area.width for area in spans], np.uint8),
    )
    return np.array(areas, np.int64), bounds


def _search(
    memory: MappedMemory, graph: PointerGraph, edges: Edges,
    bounds: tuple[NDArray[np.int64], Integers, NDArray[np.uint8]], numbers: NDArray[np.int64] | None = None,
    flags: NDArray[np.uint8] | None = None,
) -> ContainerTable:  # fmt: skip
    """The candidates in sources. `bounds`: start, size, width of each; `numbers`: in `edges`, None: its index."""
    pieces: list[tuple[NDArray[np.int64], ...]] = []
    for words, width, sources in source_words(memory, edges, bounds, numbers, flags=(flags, MEMBERS)):
        pieces += _members(graph, edges, words, width, sources)
    columns = [np.concatenate([np.empty(0, np.int64), *(piece[i] for piece in pieces)]) for i in range(len(_COLUMNS))]
    return ContainerTable(columns[0], columns[1], columns[2].astype(np.uint8), *columns[3:])


def source_words(
    memory: MappedMemory, edges: Edges,
    bounds: tuple[NDArray[np.int64], Integers, NDArray[np.uint8]], numbers: NDArray[np.int64] | None = None,
    *, needs: tuple[int, int] = (1, 0), flags: NodeFlags = (None, 0),
) -> Iterator[tuple[NDArray[np.int64], int, SourcePlaces]]:  # fmt: skip
    """(words of the file, bytes of a pointer, places of sources) of the sources with enough edges.

    `numbers`: of ascending sources in `edges`, None: their index. `needs`: edges, and, where not 0, words: only sources
    with more bytes than all of these but one, and so many words of them are in the file. `flags`: only those. Sources
    of one width, and of one place of their words in the file's, come together.
    """
    start, size, widths = bounds
    for width in distinct_widths(widths):
        for part in batches(len(start)):
            if flags[0] is not None and not (flags[0][part] & np.uint8(flags[1])).any():
                continue
            batch, first = _chosen(edges, widths, width, part, numbers)
            here: Any = part if batch is None else batch
            of_batch = (start[here], size[here], first)
            if not len(of_batch[0]):
                continue
            marked = (_NO_MARKS, 0) if flags[0] is None else (flags[0][here], flags[1])
            phases = [0]
            for phase in phases:
                places, others = _places(memory, of_batch, (width, phase, *needs), marked, len(start))
                if phase == 0:
                    phases += [other for other in range(1, width) if others >> other & 1]
                if len(places[0]):
                    names = places[1] + part.start if batch is None else batch[places[1]]
                    names = names if numbers is None else numbers[names]
                    yield memory.file_words(phase, width), width, (places[0], names, places[2])
            low, high = int(of_batch[0][0]), int(of_batch[0][-1]) + int(of_batch[1][-1])
            memory.forget(Span(low, high))  # the pages of the file need not stay in memory


def _chosen(
    edges: Edges, widths: NDArray[np.uint8], width: int, part: slice, numbers: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64] | None, NDArray[np.integer[Any]]]:
    """(sources of a part that have a width, None for all; running number of edges before each, and behind the last)."""
    has_width = widths[part] == width
    if numbers is None and has_width.all():
        return None, edges.first[part.start : part.stop + 1]
    batch = part.start + np.flatnonzero(has_width)
    of_batch = batch if numbers is None else numbers[batch]
    degree = edges.first[of_batch + 1] - edges.first[of_batch]
    return batch, np.concatenate([np.zeros(1, degree.dtype), np.cumsum(degree, dtype=degree.dtype)])


def _places(
    memory: MappedMemory, sources: tuple[NDArray[np.int64], Integers, NDArray[np.integer[Any]]],
    wanted: tuple[int, int, int, int], flags: tuple[NDArray[np.uint8], int], work: int,
) -> tuple[SourcePlaces, int]:  # fmt: skip
    """((place, index, words) of sources, other phases). `sources`: start, size, edges; `wanted`: width to needed.

    `flags`: of the sources, and the bits wanted; `work`: the number of all sources.
    """
    width, phase, least, needed = wanted
    start, size, first = sources
    low, high = memory.starts.astype(np.int64), memory.ends.astype(np.int64)
    user = (low >= 0) & (high > 0)
    delta = memory.file_offsets[user] - low[user]
    place, source, count = (np.empty(len(start), np.int64) for _ in range(3))
    many, others = run(
        source_places, work, start, size, 0, len(start), width, phase, first, least, needed, *flags,
        low[user], high[user], delta, place, source, count,
    )  # fmt: skip
    return (place[:many], source[:many], count[:many]), others


def distinct_widths(widths: NDArray[np.uint8]) -> list[int]:
    """The widths of pointers that occur, of 4 and 8 bytes, ascending."""
    if widths.strides == (0,):  # one element stands for all
        widths = widths[:1]
    return [width for width in (4, 8) if any((widths[part] == width).any() for part in batches(len(widths)))]


def _members(
    graph: PointerGraph, edges: Edges, words: NDArray[np.int64], width: int,
    sources: SourcePlaces,
) -> list[tuple[NDArray[np.int64], ...]]:  # fmt: skip
    """The candidates of sources of one width: columns, piece by piece. `sources`: place, number and words of each."""
    out, k = [], 0
    degree = edges.first[sources[1] + 1] - edges.first[sources[1]]
    room = max(_ROOM, int(degree.max(initial=0)))
    while k < len(sources[0]):
        rows = np.empty((room, len(_COLUMNS)), np.int64)
        found, k = run(
            containers_of, len(graph), words, -1 if width == 8 else 0xFFFFFFFF, width, *sources, k, edges.first,
            edges.targets, graph.start, graph.size, rows,
        )  # fmt: skip
        out.append(tuple(rows[:found].T.copy()))
    return out


def _is_proven(memory: MappedMemory, graph: PointerGraph, found: ContainerTable) -> NDArray[np.bool_]:
    """True for containers with the second witness; (c,) bool. None is a buffer of itself."""
    good: NDArray[np.bool_] = found.owner != found.buffer
    address, widths = graph.start[found.buffer], graph.widths[found.buffer].astype(np.int64)
    for kind, width in (
        (Container.STRING, 1), (Container.GNU_STRING, 1), (Container.WSTRING, _WIDE), (Container.GNU_WSTRING, _WIDE),
    ):  # fmt: skip
        rows = np.flatnonzero(found.kind == kind)
        last, is_present = memory.gather((address[rows] + found.used[rows]).astype(np.uint64), width)
        good[rows] &= is_present & (last == 0)
        if kind != Container.STRING:
            letter, _ = memory.gather(address[rows].astype(np.uint64), width)
            good[rows] &= (IS_TEXT if width == 1 else IS_WIDE_TEXT)[letter] | (found.used[rows] == 0)
    good &= ~_are_iterators(memory, graph, found)
    for width in (4, 8):  # the address of the block lies right before an aligned array
        rows = np.flatnonzero((found.kind == Container.ALIGNED_VECTOR) & (widths == width))
        begin, _ = memory.gather(place_of(graph, found, rows), width)
        before, is_present = memory.gather(begin - np.uint64(width), width)
        good[rows] &= is_present & (before.astype(np.int64) == address[rows])
    return good


def _are_iterators(memory: MappedMemory, graph: PointerGraph, found: ContainerTable) -> NDArray[np.bool_]:
    """True for vectors without elements that are an iterator of a deque of libstdc++; (c,) bool.

    Its fourth word leads to a slot, which leads to the block: { at; block; its end; slot }.
    """
    out = np.zeros(len(found), bool)
    widths = graph.widths[found.buffer].astype(np.int64)
    for width in distinct_widths(graph.widths):
        rows = np.flatnonzero((found.kind == Container.VECTOR) & (found.used == 0) & (widths == width))
        slot, _ = memory.gather(place_of(graph, found, rows) + np.uint64(3 * width), width)
        block, _ = memory.gather(slot, width)
        out[rows] = block.astype(np.int64) == graph.start[found.buffer[rows]]
    return out


def place_of(graph: PointerGraph, found: ContainerTable, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The addresses of some containers; (rows,) uint64."""
    return addresses_of(graph, found.owner[rows], found.offset[rows])


def addresses_of(graph: PointerGraph, owner: NDArray[np.int64], offset: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The addresses `offset` bytes behind the start of nodes, or of roots (-1 - area); (n,) uint64."""
    areas = np.array([*(area.span.start for area in graph.roots.areas), 0], np.int64)
    start = np.where(
        owner >= 0,
        graph.starts(np.maximum(owner, 0)),
        areas[np.where(owner < 0, np.minimum(-1 - owner, len(areas) - 1), 0)],
    )
    return (start + offset).astype(np.uint64)
