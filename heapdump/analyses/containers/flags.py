"""The nodes that may have a container, and those that begin with the header of one.

In: the pointer graph. Out: `ContainerFlags`, by which the searches of this room leave out most nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import module_areas, source_words
from heapdump.kernels import run
from heapdump.kernels.container_flags import flags_of
from heapdump.kernels.counted_members import headers_of
from heapdump.large_arrays import batches
from heapdump.memory.mapped import MappedMemory

_FEW = 4
"""From this many nodes for each pointer on, only the headers of nodes that a pointer leads to are read."""


@dataclass(frozen=True)
class ContainerFlags:
    """The flags of the n nodes of a graph, (n,) uint8 each.

    Attributes:
        header: the kind of container whose header the node begins with (`kernels.counted_members`); 0 for none, and it
            may be 0 for a node that begins with a header, where no pointer leads to the node.
        wanted: bits of `kernels.container_flags`: the searches that may find a container in the node.
    """

    header: NDArray[np.uint8]
    wanted: NDArray[np.uint8]


def container_flags(memory: MappedMemory, graph: PointerGraph) -> ContainerFlags:
    """The flags of all nodes, in two passes over their words."""
    header, wanted = _headers(memory, graph), np.zeros(len(graph), np.uint8)
    low, high, biggest = _bounds(graph)
    headers = int(np.count_nonzero(header))
    for words, width, places in source_words(memory, graph.edges, (graph.start, graph.size, graph.widths)):
        run(
            flags_of, len(graph), words, -1 if width == 8 else 0xFFFFFFFF, width, *places, low, high, biggest,
            len(graph), graph.first, graph.edges.targets, header, headers, wanted,
        )  # fmt: skip
    return ContainerFlags(header, wanted)


def _bounds(graph: PointerGraph) -> tuple[int, int, int]:
    """(the lowest start of a node, the highest end, the bytes of the longest)."""
    low, high, biggest = 1 << 62, 0, 0
    for part in batches(len(graph)):
        start, size = graph.start[part], graph.size[part]
        low = min(low, int(start.min()))
        high, biggest = max(high, int((start + size).max())), max(biggest, int(size.max()))
    return low, high, biggest


def _headers(memory: MappedMemory, graph: PointerGraph) -> NDArray[np.uint8]:
    """The kind of each node that begins with a header of Qt 5 or of a CString, else 0; (n,)."""
    _, (start, size, _) = module_areas(graph)
    low, high = (int(start.min()), int((start + size).max())) if len(start) else (0, 0)
    out = np.zeros(len(graph), np.uint8)
    for words, width, (place, nodes, _) in source_words(
        memory, graph.edges, (graph.start, graph.size, graph.widths), needs=(0, 4), flags=(_targets(graph), 1)
    ):
        kinds = np.zeros(len(nodes), np.uint8)
        run(headers_of, len(graph), words, width, place, graph.size[nodes], low, high, kinds)
        out[nodes] = kinds
    return out


def _targets(graph: PointerGraph) -> NDArray[np.uint8] | None:
    """1 for each node that a pointer leads to, else 0, (n,); None where the pointers are more than a quarter of them.

    The header of another node is of no use: `kernels.counted_members.counted_of` comes to headers by pointers alone.
    """
    pointers = (graph.edges.targets, graph.root_edges.targets)
    if sum(map(len, pointers)) * _FEW > len(graph):
        return None
    out = np.zeros(len(graph), np.uint8)
    for targets in pointers:
        out[np.where(targets < 0, -1 - targets, targets)] = 1
    return out
