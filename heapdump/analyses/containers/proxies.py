"""Proxies of containers in debug builds of Visual C++.

    container { proxy; … }        proxy { container; first iterator }        iterator { proxy; next iterator; … }

Source: `_Container_proxy` in `xmemory` of Microsoft's STL, _ITERATOR_DEBUG_LEVEL 2. Witnesses: a block of two words
leads to a place that leads back to it, and to no iterator or to one that leads back, too; and the block has a header of
the debug CRT, or a container was recognised right behind the place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import distinct_widths
from heapdump.memory.mapped import MappedMemory

Numbers = NDArray[np.int64]


def find_proxies(
    memory: MappedMemory,
    graph: PointerGraph,
    block_address: Callable[[Numbers], NDArray[np.uint64]],
    containers: Numbers,
) -> Numbers:
    """The nodes that are proxies, ascending.

    `block_address(nodes)`: where the blocks of nodes begin, before a CRT header; `containers`: their addresses.
    """
    found = [np.empty(0, np.int64)]
    known = np.unique(containers)
    for width in distinct_widths(graph.widths):
        nodes = np.flatnonzero((graph.size == 2 * width) & (graph.widths == width))
        place = _words(memory, graph.start[nodes], width)
        nodes, place = nodes[place != 0], place[place != 0]
        leads_back = _words(memory, place, width) == graph.start[nodes]
        nodes, place = nodes[leads_back], place[leads_back]
        iterator = _words(memory, graph.start[nodes] + width, width)
        is_iterator = (iterator == 0) | (_words(memory, iterator, width) == graph.start[nodes])
        has_header = graph.start[nodes] != block_address(nodes).astype(np.int64)
        found.append(nodes[is_iterator & (has_header | np.isin(place + width, known))])
    return np.unique(np.concatenate(found))


def _words(memory: MappedMemory, address: Numbers, width: int) -> Numbers:
    """The words at addresses; 0 where they are not in the dump."""
    return memory.gather(address.astype(np.uint64), width)[0].astype(np.int64)
