"""The cluster of every block: the nodes of one heap and size that have one structure.

In: the pointer graph. Out: `Clusters`. A class of blocks of one heap and size is one cluster, unless the letters of its
sample tell several structures; then each of its blocks goes to the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.clusters.letters import LETTERS, Letter, Letters, PointerEdges
from heapdump.analyses.clusters.sample import FEWEST, SizeClasses, WordReader, WordSample, read_sample, size_classes
from heapdump.analyses.clusters.split import Profile, join, likelihood, may_differ, split
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.size_classes import count_numbers
from heapdump.large_arrays import batches, look_up
from heapdump.memory.mapped import MappedMemory
from heapdump.process.model import Process
from heapdump.spans import Span, merged

_BATCH = 1 << 16
_MOST_SPLIT = 1024
"""Classes that are examined for several structures, those with most bytes."""

_RANKS, _MOST_ROUNDS = 3, 3
_MOST_WORDS = 8
"""Words by which blocks are put to structures."""


@dataclass(frozen=True)
class Clusters:
    """The c clusters of a graph: nodes of one heap and size whose words look alike.

    Attributes:
        number: (n,) int32 cluster of each node; -1 for none.
        heap: (c,) int64 index of the heap.
        size: (c,) int64 requested bytes of a node.
        width: (c,) int64 bytes of a pointer.
        count: (c,) int64 number of nodes.
        sample: the k nodes whose words were read.
        sample_number: (k,) cluster of each of these.
    """

    number: NDArray[np.int32]
    heap: NDArray[np.int64]
    size: NDArray[np.int64]
    width: NDArray[np.int64]
    count: NDArray[np.int64]
    sample: WordSample
    sample_number: NDArray[np.int64]


def edges_of(process: Process, heaps: Sequence[Heap]) -> PointerEdges:
    """The spans of the modules and of the heaps of a process."""

    def by_turns(spans: Iterable[Span]) -> NDArray[np.uint64]:
        """Starts and ends, ascending."""
        return np.array([(span.start, span.end) for span in merged(spans)], np.uint64).reshape(-1)

    modules = by_turns(module.span for module in process.modules)
    return PointerEdges(modules, by_turns(extent.span for heap in heaps for extent in heap.extents))


def find_clusters(memory: MappedMemory, graph: PointerGraph, table: BlockTable, edges: PointerEdges) -> Clusters:
    """The clusters of all nodes, in O(nodes). `edges`: spans of modules and heaps.

    Blocks are told apart by what they point to, too: by size first, then by the clusters found so far.
    """
    classes = size_classes(graph, table)
    reader = WordReader(memory, graph, edges)
    sample = read_sample(reader, classes)
    number, origin = classes.number, np.arange(len(classes))
    for _ in range(_MOST_ROUNDS):
        made = len(origin)
        number, origin = _split_again(reader, sample, number, origin)
        if len(origin) == made:
            break
    if len(origin) > len(classes):
        _join_again(sample, number, origin)
    return _numbered(classes, sample, number, origin)


def _join_again(sample: WordSample, number: NDArray[np.int32], origin: NDArray[np.int64]) -> None:
    """Writes one number for clusters of a class that do not differ clearly to `number`.

    The leaves of a tree, whose links are zero, can be put to another structure first, and be left alone when that is
    split off.
    """
    targets = _common_targets(number, sample.owner, origin, sample.refs)
    refined = _refined(sample.letters, sample.refs, (targets, sample.owner), number, origin, sample.owner)
    new, first = np.arange(len(origin) + 1, dtype=np.int32), np.searchsorted(sample.owner, np.arange(len(origin) + 1))
    new[-1] = -1
    for class_ in np.flatnonzero(np.bincount(origin) > 1).tolist():
        rows = slice(int(first[class_]), int(first[class_ + 1]))
        clusters, group = np.unique(number[sample.node[rows]], return_inverse=True)
        joined = join(refined[rows], group.reshape(-1))
        for cluster, one in zip(clusters.tolist(), joined.tolist(), strict=True):
            new[cluster] = clusters[int(np.argmax(joined == one))]
    look_up(number, new)


def _split_again(
    reader: WordReader, sample: WordSample, number: NDArray[np.int32], origin: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(`number`, `origin`) after clusters with several structures are split. `origin`: the class of each cluster."""
    owner = number[sample.node].astype(np.int64)
    targets = _common_targets(number, owner, origin, sample.refs)
    refined = _refined(sample.letters, sample.refs, (targets, owner), number, origin, origin[owner])
    structures = _structures(owner, len(origin), refined)
    if not structures:
        return number, origin
    out, made, origins = number.copy(), len(origin), [origin]
    for cluster, profile in structures.items():
        _choose(reader, profile, (cluster, made), targets[cluster : cluster + 1], (number, origin), out)
        origins.append(np.full(len(profile) - 1, origin[cluster]))
        made += len(profile) - 1
    return out, np.concatenate(origins)


def _common_targets(
    number: NDArray[np.int32], owner: NDArray[np.int64], origin: NDArray[np.int64], refs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(clusters, words, 3): the clusters that most pointers at each word of a cluster lead to, -1 where there is none.

    `owner` (k,): the cluster of each block of the sample; `refs` (k, words): the nodes that its words point into.
    """
    clusters, words = len(origin), refs.shape[1]
    out = np.full((clusters * words, _RANKS), -1, np.int64)
    row, word = np.nonzero(refs >= 0)
    target = _seen(number[refs[row, word]], origin, origin[owner[row]])
    place = owner[row] * words + word
    place, target = place[target >= 0], target[target >= 0]
    pairs, counts = np.unique(place * max(1, clusters) + target, return_counts=True)
    place, target = np.divmod(pairs, max(1, clusters))
    order = np.lexsort((target, -counts, place))
    place, target = place[order], target[order]
    rank = np.arange(len(place)) - np.searchsorted(place, place, side="left")
    first = rank < _RANKS
    out[place[first], rank[first]] = target[first]
    return out.reshape(clusters, words, _RANKS)


def _seen(target: NDArray[np.int32], origin: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cluster of each target; for one of the class of the source the class itself, which has the same number.

    Else the leaves of a tree would be one structure, the nodes above them another, level by level.
    """
    is_own = (target >= 0) & (origin[target] == source)
    return np.where(is_own, source, target).astype(np.int64)


def _refined(
    letters: Letters, refs: NDArray[np.int64], common: tuple[NDArray[np.int64], NDArray[np.int64]],
    number: NDArray[np.int32],
    origin: NDArray[np.int64], source: NDArray[np.int64],
) -> Letters:  # fmt: skip
    """(n, words) letters that distinguish pointers to common targets.

    `common`: (common targets of each cluster, (clusters, words, 3), -1 for none; the cluster of each block, (n,), or
    (1,) where all blocks are of one). `source`: the class of each block, (n,) or (1,).
    """
    out = letters.copy()
    row, word = np.nonzero(refs >= 0)
    target = _seen(number[refs[row, word]], origin, source[row % len(source)])
    targets, owner = common
    wanted = targets[owner[row % len(owner)], word]  # rows for pointers only: few words are pointers
    for rank, letter in enumerate((Letter.FIRST, Letter.SECOND, Letter.THIRD)):
        is_rank = (wanted[:, rank] == target) & (target >= 0)
        out[row[is_rank], word[is_rank]] = letter
    return out


def _structures(owner: NDArray[np.int64], clusters: int, refined: Letters) -> dict[int, Profile]:
    """Cluster → its structures, for clusters that have several."""
    words = refined.shape[1]
    place = (owner[:, None] * words + np.arange(words)) * LETTERS + refined
    counts = np.bincount(place.reshape(-1), minlength=clusters * words * LETTERS)
    candidates = np.flatnonzero(may_differ(counts.reshape(clusters, words, LETTERS)))[:_MOST_SPLIT]
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], candidates, side="left").tolist()
    last = np.searchsorted(owner[order], candidates, side="right").tolist()
    found = {}
    for cluster, low, high in zip(candidates.tolist(), first, last, strict=True):
        profile = split(refined[order[low:high]])
        if profile is not None:
            found[cluster] = profile
    return found


def _choose(
    reader: WordReader, profile: Profile, clusters: tuple[int, int], targets: NDArray[np.int64],
    numbers: tuple[NDArray[np.int32], NDArray[np.int64]], out: NDArray[np.int32],
) -> None:  # fmt: skip
    """Writes the structure of each node of a cluster to `out`, by the words in which the structures differ most.

    `clusters`: (number of the cluster and of its first structure, number of its second structure); `numbers`: (cluster
    of each node, class of each cluster).
    """
    number, origin = numbers
    cluster, made = clusters
    spread = (profile.max(axis=0) - profile.min(axis=0)).sum(axis=1)
    words = np.sort(np.argsort(-spread, kind="stable")[:_MOST_WORDS])
    most = int(words[-1]) + 1
    for part in batches(len(number)):
        nodes = part.start + np.flatnonzero(number[part] == cluster)
        for low in range(0, len(nodes), _BATCH):
            batch = nodes[low : low + _BATCH]
            letters, _, refs = reader.read(batch, most)
            letters = _refined(letters, refs, (targets, np.zeros(1, np.int64)), number, origin, origin[[cluster]])
            choice = np.argmax(likelihood(profile[:, words], letters[:, words]), axis=1)
            out[batch] = np.where(choice > 0, made + choice - 1, cluster)


def _numbered(
    classes: SizeClasses, sample: WordSample, number: NDArray[np.int32], origin: NDArray[np.int64]
) -> Clusters:
    """Clusters numbered by their bytes; those of few nodes are none. `origin`: class of each cluster in `number`.

    `number` is renumbered.
    """
    count = np.zeros(len(origin), np.int64)
    run(count_numbers, len(number), number, count)
    size = classes.size[origin]
    chosen = np.flatnonzero(count >= FEWEST)
    chosen = chosen[np.argsort(-count[chosen] * size[chosen], kind="stable")]
    new = np.full(len(origin) + 1, -1, np.int32)
    new[chosen] = np.arange(len(chosen))
    look_up(number, new)
    owner = origin[chosen]
    return Clusters(
        number, classes.heap[owner], size[chosen], classes.width[owner], count[chosen], sample,
        number[sample.node].astype(np.int64),
    )  # fmt: skip
