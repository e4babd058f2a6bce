"""Some blocks of each size, with their first words as letters.

In: the pointer graph. Out: `SizeClasses`, the nodes of one heap and size, and `WordSample`, the letters of some of
each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.clusters.letters import Letter, Letters, PointerEdges, plain_letters
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.blocks.table import BlockTable
from heapdump.kernels import WORTH_COMPILING, run
from heapdump.kernels.pointer_map import thin
from heapdump.kernels.size_classes import number_sizes
from heapdump.kernels.word_classes import words_of
from heapdump.large_arrays import batches, empty, look_up
from heapdump.memory.mapped import MappedMemory

WORDS = 32
"""Words of a block that are read, at most."""

FEWEST = 5
"""Blocks of a class or of a cluster, at least."""

_MOST_CLASSES, _MOST_OF_CLASS, _FEW = 4096, 512, 16
_LONG, _MOST_KEYS = 1 << 16, 1 << 20
_SHORT_SAMPLE, _LONG_SAMPLE = 1 << 14, 1 << 17
"""Blocks of all samples: where loops run in plain Python, and where they are compiled."""


@dataclass(frozen=True)
class SizeClasses:
    """The m size classes of a graph: nodes of one heap and one size. Classes are numbered by bytes, most first.

    Attributes:
        number: (n,) int32 class of each node; -1 for nodes of small classes.
        heap: (m,) int64 index of the heap.
        size: (m,) int64 requested bytes of a node.
        width: (m,) int64 bytes of a pointer.
        count: (m,) int64 number of nodes.
    """

    number: NDArray[np.int32]
    heap: NDArray[np.int64]
    size: NDArray[np.int64]
    width: NDArray[np.int64]
    count: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.size)


def size_classes(graph: PointerGraph, table: BlockTable) -> SizeClasses:
    """The classes of at least five nodes; the 4096 with most bytes."""
    owners = int(table.heap.max()) + 1 if len(graph) else 1
    number, found = _numbered(graph, table, owners)
    key, count, widths = found
    heap, size = key % owners, key // owners
    chosen = np.flatnonzero((count >= FEWEST) & (size >= int(widths.max(initial=4))))
    chosen = chosen[np.lexsort((heap[chosen], size[chosen], -size[chosen] * count[chosen]))][:_MOST_CLASSES]
    new = np.full(len(key) + 1, -1, np.int32)
    new[chosen] = np.arange(len(chosen))
    look_up(number, new)
    return SizeClasses(number, heap[chosen], size[chosen], widths[chosen], count[chosen])


def _numbered(
    graph: PointerGraph, table: BlockTable, owners: int
) -> tuple[NDArray[np.int32], tuple[NDArray[np.int64], ...]]:
    """(dense number of each node's key, (key, nodes, bytes of a pointer) by number); the key is size * owners + heap.

    The few keys of long blocks, far apart, are sorted.
    """
    numbers, room = empty(len(graph), np.int32), min(_LONG * owners, _MOST_KEYS)
    places, counts, widths = (np.zeros(room, np.int64) for _ in range(3))
    run(
        number_sizes, len(graph), graph.rows, graph.size, table.heap, owners, graph.widths, places, counts, widths,
        numbers,
    )  # fmt: skip
    keys = np.flatnonzero(places)
    keys = keys[np.argsort(places[keys])]
    long = [np.empty(0, np.int64)]
    long += [part.start + np.flatnonzero(numbers[part] < 0) for part in batches(len(numbers))]
    nodes = np.concatenate(long)
    more = graph.size[nodes].astype(np.int64) * owners + table.heap[graph.rows[nodes]]
    found, last, inverse, many = np.unique(more[::-1], return_index=True, return_inverse=True, return_counts=True)
    numbers[nodes[::-1]] = len(keys) + inverse
    width = graph.widths[nodes[::-1][last]].astype(np.int64)
    columns = ((keys, found), (counts[keys], many), (widths[keys], width))
    return numbers, tuple(np.concatenate(both) for both in columns)


@dataclass(frozen=True)
class WordSample:
    """The first words of k sampled nodes, ascending by class.

    Attributes:
        node: (k,) node.
        owner: (k,) number of its size class.
        letters: (k, WORDS) uint8 `Letter` of each word.
        values: (k, WORDS) int64 words.
        refs: (k, WORDS) int64 node that each word points into; -1 for none.
    """

    node: NDArray[np.int64]
    owner: NDArray[np.int64]
    letters: Letters
    values: NDArray[np.int64]
    refs: NDArray[np.int64]


_MANY = 1 << 10
"""Nodes that are read at once."""

_MANY_READS = 1 << 8
"""Each of so many nodes may bring 64 KiB of the file into memory, which need not stay there."""


class WordReader:
    """Reads the first words of nodes of one pointer graph."""

    def __init__(self, memory: MappedMemory, graph: PointerGraph, edges: PointerEdges) -> None:
        """`edges`: spans of modules and heaps."""
        self._memory, self._graph, self._edges = memory, graph, edges

    def read(self, nodes: NDArray[np.int64], most: int) -> tuple[Letters, NDArray[np.int64], NDArray[np.int64]]:
        """(letters, words, nodes that they point into) of the first `most` words; (nodes, most) each, see `WordSample`.

        A node that lies in several memory ranges of the dump counts as not there.
        """
        letters, (values, refs) = np.empty((len(nodes), most), np.uint8), np.empty((2, len(nodes), most), np.int64)
        order = np.argsort(nodes, kind="stable")
        for low in range(0, len(nodes), _MANY):
            batch = order[low : low + _MANY]
            letters[batch], values[batch], refs[batch] = self._read(nodes[batch], most)
            if len(batch) >= _MANY_READS:
                self._memory.forget_all()
        return letters, values, refs

    def _read(self, nodes: NDArray[np.int64], most: int) -> tuple[Letters, NDArray[np.int64], NDArray[np.int64]]:
        graph = self._graph
        letters = np.zeros((len(nodes), most), np.uint8)
        values, refs = np.zeros((len(nodes), most), np.int64), np.full((len(nodes), most), -1, np.int64)
        for width in np.unique(graph.widths[nodes]).tolist():
            of_width = np.flatnonzero(graph.widths[nodes] == width)
            start = graph.start[nodes[of_width]]
            count = np.minimum(graph.size[nodes[of_width]].astype(np.int64) // width, most)
            place = self._memory.file_places(start, start + count * width)
            for phase in np.unique(place[place >= 0] % width).tolist():
                here = np.flatnonzero((place >= 0) & (place % width == phase))
                found = self._of_phase(nodes[of_width[here]], place[here], count[here], most, width)
                if len(here) == len(nodes):
                    return found
                rows = of_width[here]
                letters[rows], values[rows], refs[rows] = found
        return letters, values, refs

    def _of_phase(
        self, nodes: NDArray[np.int64], place: NDArray[np.int64], count: NDArray[np.int64], most: int, width: int
    ) -> tuple[Letters, NDArray[np.int64], NDArray[np.int64]]:
        """As `read`, of nodes whose words lie at the same bytes of a word of the file."""
        graph, shape = self._graph, (len(nodes), most)
        phase = int(place[0]) % width
        values, refs = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        run(
            words_of, len(graph), self._memory.file_words(phase, width), -1 if width == 8 else 0xFFFFFFFF,
            (place - phase) // width, nodes, count, most, graph.first, graph.edges.targets, graph.start, graph.size,
            values.reshape(-1), refs.reshape(-1),
        )  # fmt: skip
        letters = np.full(shape, Letter.ZERO, np.uint8)
        plain = (values != 0) & (refs < 0)
        letters[plain] = plain_letters(values[plain].view(np.uint64), width, self._edges)
        letters[refs >= 0] = Letter.POINTER
        letters[np.arange(most) >= count[:, None]] = Letter.BEYOND
        return letters, values, refs


def read_sample(reader: WordReader, classes: SizeClasses) -> WordSample:
    """Evenly spread nodes of each class, at most 1024."""
    room = _SHORT_SAMPLE if len(classes.number) < WORTH_COMPILING else _LONG_SAMPLE
    most = min(max(room // max(1, len(classes)), _FEW), _MOST_OF_CLASS)
    counts, places = np.zeros(len(classes) + 1, np.int64), np.empty(len(classes.number), np.int64)
    owner = classes.number
    numbers = np.arange(len(counts), dtype=np.int32)  # -1 leads to the last one
    found = run(thin, len(owner), owner, numbers, most, counts, np.zeros(len(counts), np.int64), places)
    node = places[:found]
    node = node[owner[node] >= 0]
    node = node[np.argsort(owner[node], kind="stable")]
    letters, values, refs = reader.read(node, WORDS)
    return WordSample(node, classes.number[node].astype(np.int64), letters, values, refs)
