"""The nearest dominator of some kind of each node, and the root that each node is reached from first."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output


def nearest(dominator: ArrayColumn, is_owner: ArrayColumn, out: Output) -> None:
    """Writes the nearest dominator that is an owner of each number of a dominator tree to `out`; 0: none.

    A number that is an owner itself is its own. `dominator`, `is_owner`: (count,), see `dominators.dominators`.
    """
    out[0] = 0
    for v in range(1, len(dominator)):
        out[v] = v if is_owner[v] != 0 else out[dominator[v]]


def flood_from(
    first: ArrayColumn, targets: ArrayColumn, seeds: ArrayColumn, roots: ArrayColumn, root_of: Output, queue: Output
) -> None:
    """Gives each node that has none yet the root from which it is reached first, in order of distance.

    Args:
        first: the edges (`reach`).
        targets: likewise.
        seeds: (k,) nodes that roots point into.
        roots: (k,) number of the root of each.
        root_of: (n,) the root of each node, -1 for none.
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
