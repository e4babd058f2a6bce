"""The nearest dominator of each node that is an owner, and the nearest root of each node."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output


def nearest(dominator: ArrayColumn, is_owner: ArrayColumn, out: Output) -> None:
    """Writes to `out`, for each number of a dominator tree, the nearest owner that dominates it; 0 for none.

    An owner's nearest owner is itself.

    Args:
        dominator: (count,) immediate dominators (`dominators.dominators`).
        is_owner: (count,) not 0 for owners.
        out: (count,).
    """
    out[0] = 0
    for v in range(1, len(dominator)):
        out[v] = v if is_owner[v] != 0 else out[dominator[v]]


def flood_from(
    first: ArrayColumn, targets: ArrayColumn, seeds: ArrayColumn, roots: ArrayColumn, root_of: Output, queue: Output
) -> None:
    """Gives each node without a root the root with the fewest pointers between the two.

    Args:
        first: the edges (`reach`).
        targets: likewise.
        seeds: (k,) nodes that roots point into.
        roots: (k,) number of the root that points into each seed; of two roots of one seed the first wins.
        root_of: (n,) number of the root of each node; -1 for none, which this call fills in.
        queue: (n,) scratch.
    """
    head, tail = 0, 0
    for k in range(len(seeds)):
        node = seeds[k]
        if root_of[node] < 0:
            root_of[node] = roots[k]
            queue[tail] = node
            tail += 1
    while head < tail:
        node = queue[head]
        head += 1
        root = root_of[node]
        for e in range(first[node], first[node + 1]):
            t = targets[e]
            if t < 0:
                t = -1 - t
            if root_of[t] < 0:
                root_of[t] = root
                queue[tail] = t
                tail += 1
