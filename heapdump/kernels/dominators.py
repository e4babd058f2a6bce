"""Immediate dominators of the pointer graph, and the bytes that they retain.

Node d dominates node t when every path from the roots to t leads through d. Algorithm: SEMI-NCA (Georgiadis, Tarjan):
a depth-first order, semidominators by path compression, then the nearest common ancestor of parent and semidominator,
which is found by jump pointers (Myers, 1983): O(log n) steps also where lists of a million nodes share their elements.
Edges are those of `reach`. Node n stands for all roots together.

Two numberings are used: a *node* is an index of the pointer graph, a *number* counts nodes in depth-first order.
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output


def preorder(
    first: ArrayColumn,
    targets: ArrayColumn,
    roots: ArrayColumn,
    number: Output,
    order: Output,
    parent: Output,
    edge: Output,
    degree: Output,
) -> int:
    """Numbers the nodes that roots reach in depth-first order, from 1 on; number 0 is node n.

    Args:
        first: (n + 1,), see `reach`.
        targets: see `reach`.
        roots: nodes that roots point to.
        number: (n,) of -1; gets the number of each node that is reached.
        order: (n + 1,) gets the node of each number.
        parent: (n + 1,) gets the number from which each number was reached.
        edge: (n,) scratch, of the type of `first`.
        degree: (n + 1,) of 0; gets for each number how many pointers lead there, those of roots left out.

    Returns:
        How many numbers were given, 0 included.
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
                degree[here] += 1
            else:
                degree[number[t]] += 1
    return count


def pointed_from(
    first: ArrayColumn, targets: ArrayColumn, number: ArrayColumn, order: ArrayColumn, count: int, end: Output,
    sources: Output,
) -> None:  # fmt: skip
    """Writes the edges backwards, by numbers: `sources[end[v - 1]:end[v]]` gets the numbers that point to number v > 0.

    Args:
        first: (n + 1,), see `reach`.
        targets: see `reach`.
        number: of `preorder`.
        order: of `preorder`.
        count: of `preorder`.
        end: `degree` of `preorder`; see above.
        sources: gets an element for each edge of a node that is reached.
    """
    total = 0
    for v in range(count):
        many = end[v]
        end[v] = total
        total += many
    for v in range(1, count):
        node = order[v]
        for e in range(first[node], first[node + 1]):
            t = targets[e]
            w = number[t if t >= 0 else -1 - t]
            sources[end[w]] = v
            end[w] += 1


def dominators(
    end: ArrayColumn, sources: ArrayColumn, is_root: ArrayColumn, parent: Output, count: int, semi: Output,
    least: Output, out: Output,
) -> None:  # fmt: skip
    """Writes the number of the immediate dominator of each number to `out`; 0 where no single node dominates it.

    Args:
        end: of `pointed_from`.
        sources: of `pointed_from`.
        is_root: (count,) not 0 for numbers that roots point to.
        parent: of `preorder`; overwritten, first by shortened paths through numbers above v, which are done, then by
            the depths in the dominator tree.
        count: of `preorder`.
        semi: (count,) scratch.
        least: (count,) scratch: the smallest semidominator on the shortened path; then an ancestor in the dominator
            tree, to which the search jumps.
        out: (count,).
    """
    for v in range(count):
        out[v] = parent[v]
    for v in range(count - 1, 0, -1):
        best = 0 if is_root[v] != 0 else v
        for e in range(end[v - 1], end[v]):
            u = sources[e]
            if best == 0:
                break
            if u > v:  # take the smallest semidominator on the path up to v or below
                at, below = u, -1
                while parent[at] > v:  # upwards, turning the path round
                    above = parent[at]
                    parent[at] = below
                    below, at = at, above
                top = parent[at]
                while below >= 0:  # and down again
                    following = parent[below]
                    parent[below], least[below] = top, min(least[below], least[at])
                    at, below = below, following
                u = least[u]
            if u < best:
                best = u
        semi[v], least[v] = best, best
    depth, jump = parent, least
    depth[0], jump[0] = 0, 0
    for v in range(1, count):
        at, last = out[v], semi[v]
        while at > last:  # numbers fall on the way up
            far = jump[at]
            at = far if far > last else out[at]
        out[v] = at
        far = jump[at]
        is_even = depth[at] - depth[far] == depth[far] - depth[jump[far]]
        depth[v], jump[v] = depth[at] + 1, jump[far] if is_even else at


def retain(out: ArrayColumn, count: int, retained: Output, blocks: Output) -> None:
    """Sums the subtrees of the dominator tree.

    Args:
        out: (count,) immediate dominator of each number (`dominators`); smaller than the number itself.
        count: of `preorder`.
        retained: (count,) bytes of each number, 0 of number 0; gets those of all that it dominates, itself included.
        blocks: (count,) gets how many blocks these are; 0 is none.
    """
    blocks[0] = 0
    for v in range(1, count):
        blocks[v] = 1
    for v in range(count - 1, 0, -1):
        retained[out[v]] += retained[v]
        blocks[out[v]] += blocks[v]


def spread(out: ArrayColumn, count: int, inside: Output) -> None:
    """Copies `inside[d]`, where it is not 0, to every number that d dominates and whose own value is 0.

    `out`: (count,) immediate dominators; `inside`: (count,).
    """
    for v in range(1, count):
        if inside[v] == 0:
            inside[v] = inside[out[v]]


def retain_groups(
    child: ArrayColumn,
    children: ArrayColumn,
    order: ArrayColumn,
    group: ArrayColumn,
    retained: ArrayColumn,
    active: Output,
    edge: Output,
    path: Output,
    totals: Output,
) -> None:
    """Adds to `totals[group]` the retained bytes of each node that no other node of the same group dominates.

    Args:
        child: (count + 1,) the children of number v in the tree are `children[child[v]:child[v + 1]]`.
        children: see above.
        order: of `preorder`.
        group: (n,) group of each node; -1 for none.
        retained: of `retain`.
        active: (groups,) of 0; scratch.
        edge: (count,) scratch.
        path: (count + 1,) scratch.
        totals: (groups,) bytes.
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
