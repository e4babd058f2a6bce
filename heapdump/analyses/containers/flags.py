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


@dataclass(frozen=True)
class ContainerFlags:
    """The flags of the n nodes of a graph, (n,) uint8 each.

    Attributes:
        header: the kind of container whose header the node begins with (`kernels.counted_members`); 0 for none.
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
        memory, graph.edges, (graph.start, graph.size, graph.widths), needs=(0, 4)
    ):
        kinds = np.zeros(len(nodes), np.uint8)
        run(headers_of, len(graph), words, width, place, graph.size[nodes], low, high, kinds)
        out[nodes] = kinds
    return out
