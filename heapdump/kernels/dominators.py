"""Immediate dominators: through which node every way from the roots to a node leads.

SEMI-NCA (Georgiadis, Tarjan): a depth-first order, semidominators by path compression, then the nearest common ancestor of
parent and semidominator. Close to linear. Node n is the root that holds all others; edges as in `walk`.
"""

from __future__ import annotations

from typing import Any


def preorder(first: Any, targets: Any, roots: Any, number: Any, order: Any, parent: Any, edge: Any) -> int:
    """Numbers nodes in depth-first order from 1 on; number 0 is the one root, node n, whose targets are `roots`.

    `number[node]`: -1 where not reached; `order[number]`: the node; `parent[number]`: the number that it was reached from.
    `edge` (n,) is scratch.

    Returns:
        How many numbers there are, the root's included.
    """
    count = 1
    order[0], parent[0] = len(first) - 1, 0
    for k in range(len(roots)):
        node = roots[k]
        if number[node] >= 0:
            continue
        number[node], order[count], parent[count] = count, node, 0
        edge[node] = first[node]
        here, count = count, count + 1
        while here > 0:
            node = order[here]
            e = edge[node]
            if e == first[node + 1]:
                here = parent[here]
                continue
            edge[node] = e + 1
            t = targets[e]
            t = t if t >= 0 else -1 - t
            if number[t] < 0:
                number[t], order[count], parent[count] = count, t, here
                edge[t] = first[t]
                here, count = count, count + 1
    return count


def dominators(
    first: Any,
    sources: Any,
    is_root: Any,
    number: Any,
    order: Any,
    parent: Any,
    count: int,
    semi: Any,
    label: Any,
    ancestor: Any,
    out: Any,
    path: Any,
) -> None:
    """`out[number]`: the number of the immediate dominator of each, 0 for those of the root.

    `first`, `sources`: the edges backwards; `is_root[node]`: not 0 where the root points to it. Numbers are those of
    `preorder`. `semi`, `label`, `ancestor`, `path` (count,) are scratch.
    """
    for v in range(count):
        semi[v], label[v], ancestor[v], out[v] = v, v, -1, parent[v]
    for v in range(count - 1, 0, -1):
        node = order[v]
        best = 0 if is_root[node] != 0 else v
        for e in range(first[node], first[node + 1]):
            source = sources[e]
            u = number[source if source >= 0 else -1 - source]
            if best == 0:
                break
            if u < 0:
                continue
            if u > v or ancestor[u] >= 0:  # in the forest already: the smallest semidominator on the way up to its root
                depth, at = 0, u
                while ancestor[at] >= 0 and ancestor[ancestor[at]] >= 0:
                    path[depth] = at
                    depth += 1
                    at = ancestor[at]
                while depth > 0:
                    depth -= 1
                    below, above = path[depth], ancestor[path[depth]]
                    if semi[label[above]] < semi[label[below]]:
                        label[below] = label[above]
                    ancestor[below] = ancestor[above]
                u = semi[label[u]]
            if u < best:
                best = u
        semi[v] = best
        ancestor[v] = parent[v]
    for v in range(1, count):
        at = out[v]
        while at > semi[v]:
            at = out[at]
        out[v] = at


def retain(out: Any, order: Any, size: Any, count: int, retained: Any, blocks: Any) -> None:
    """Adds up subtrees: `retained[number]` bytes and `blocks[number]` nodes that only this one holds, itself included.

    `out`: dominators by number, each smaller than its node's.
    """
    for v in range(1, count):
        retained[v], blocks[v] = size[order[v]], 1
    retained[0], blocks[0] = 0, 0
    for v in range(count - 1, 0, -1):
        retained[out[v]] += retained[v]
        blocks[out[v]] += blocks[v]


def spread(out: Any, count: int, inside: Any) -> None:
    """`inside[number]` becomes that of its dominator where it is 0: a mark on a node spreads to all that it dominates."""
    for v in range(1, count):
        if inside[v] == 0:
            inside[v] = inside[out[v]]


def retain_groups(
    child: Any, children: Any, order: Any, group: Any, retained: Any, active: Any, edge: Any, path: Any, totals: Any
) -> None:
    """Adds to `totals[group]` the retained bytes of nodes that no other node of their group dominates.

    The children of number v in the tree are `children[child[v]:child[v + 1]]`; `group[node]`: -1 for none. `active` is
    zero for each group; `edge`, `path` (count,) are scratch.
    """
    depth = 0
    path[0], edge[0] = 0, child[0]
    while depth >= 0:
        v = path[depth]
        if edge[v] == child[v + 1]:
            depth -= 1
            if v > 0 and group[order[v]] >= 0:
                active[group[order[v]]] -= 1
            continue
        v = children[edge[v]]
        edge[path[depth]] += 1
        depth += 1
        path[depth], edge[v] = v, child[v]
        g = group[order[v]]
        if g >= 0:
            if active[g] == 0:
                totals[g] += retained[v]
            active[g] += 1
