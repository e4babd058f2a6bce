"""Walks over a graph whose edges lie one node behind the other: those of node i are `targets[first[i]:first[i + 1]]`.

A target t < 0 stands for node -1 - t, and for a pointer that does not point at its start.
"""

from __future__ import annotations

from typing import Any


def flood(first: Any, targets: Any, stack: Any, tail: int, later: Any, waiting: int, batch: Any, state: Any) -> None:
    """Marks what can be reached from `stack[:tail]`, by pointers to starts alone 1, else 2.

    The stack's nodes have state 1; `later[:waiting]`, which only pointers to the inside or weak roots hold, 2. Nodes of
    state 0 were not seen, those of other states are left alone. Both arrays have room for every node; `batch` is scratch,
    with room for the edges of the node that has most.

    Edges of several nodes are gathered before any is followed, so that the processor waits for memory once for all.
    """
    mark = 1
    while tail > 0 or mark == 1:
        if tail == 0:  # on to what else is held
            mark = 2
            for k in range(waiting):
                if state[later[k]] == 2:
                    stack[tail] = later[k]
                    tail += 1
            continue
        bottom, total = tail, 0
        while bottom > 0 and tail - bottom < 64:
            node = stack[bottom - 1]
            total += first[node + 1] - first[node]
            if total > len(batch):
                break
            bottom -= 1
        count = 0
        for k in range(bottom, tail):
            node = stack[k]
            for e in range(first[node], first[node + 1]):
                batch[count] = targets[e]
                count += 1
        tail = bottom
        for k in range(count):
            t = batch[k]
            if t < 0:
                t = -1 - t
                if mark == 1:
                    if state[t] == 0:
                        state[t] = 2
                        later[waiting] = t
                        waiting += 1
                    continue
            if state[t] == 0 or (state[t] == 2 and mark == 1):
                state[t] = mark
                stack[tail] = t
                tail += 1


def refer(first: Any, targets: Any, nodes: Any, state: Any, mark: int) -> None:
    """Gives `mark` to each node of state 0 or `mark` that another one of `nodes` points to."""
    for k in range(len(nodes)):
        node = nodes[k]
        for e in range(first[node], first[node + 1]):
            t = targets[e]
            t = t if t >= 0 else -1 - t
            if t != node and state[t] == 0:
                state[t] = mark


def heads(first: Any, targets: Any, nodes: Any, seen: Any, queue: Any, out: Any) -> int:
    """Those of `nodes`, in their order, that none before them reaches; `seen` becomes 1 for all that were reached.

    Returns:
        How many are in `out`.
    """
    count = 0
    for k in range(len(nodes)):
        if seen[nodes[k]] != 0:
            continue
        out[count] = nodes[k]
        count += 1
        seen[nodes[k]] = 1
        queue[0] = nodes[k]
        head, tail = 0, 1
        while head < tail:
            node = queue[head]
            head += 1
            for e in range(first[node], first[node + 1]):
                t = targets[e]
                t = t if t >= 0 else -1 - t
                if seen[t] == 0:
                    seen[t] = 1
                    queue[tail] = t
                    tail += 1
    return count


def invert(first: Any, targets: Any, place: Any, sources: Any) -> None:
    """The edges backwards: `sources[place[t]:]` gets the nodes that point to t, -1 - node for those to its inside.

    `place[t]` is where the first goes; it ends behind the last.
    """
    for node in range(len(first) - 1):
        for e in range(first[node], first[node + 1]):
            t = targets[e]
            if t >= 0:
                sources[place[t]] = node
                place[t] += 1
            else:
                sources[place[-1 - t]] = -1 - node
                place[-1 - t] += 1


def count_targets(targets: Any, counts: Any) -> None:
    """Adds one to `counts[node]` for each edge to the node."""
    for e in range(len(targets)):
        t = targets[e]
        counts[t if t >= 0 else -1 - t] += 1


def trace(first: Any, sources: Any, node: int, held: Any, least: int, most: int, steps: Any, queue: Any, out: Any) -> int:
    """Goes backwards from a node, nearest first, to nodes that roots hold: those with `held` of `least` or more.

    `first`, `sources`: the edges backwards. `steps[n]` becomes the node behind n on the way to `node`, which is its own;
    -1 stands for nodes that were not seen.

    Returns:
        How many of the nodes found are in `out`; the search ends where that is full. -1 where it was not over after so
        many nodes as `most` says.
    """
    count, head, tail = 0, 0, 1
    steps[node], queue[0] = node, node
    while head < tail and count < len(out):
        if head == most:
            return -1
        here = queue[head]
        head += 1
        if held[here] >= least:
            out[count] = here
            count += 1
        for e in range(first[here], first[here + 1]):
            source = sources[e]
            source = source if source >= 0 else -1 - source
            if steps[source] < 0:
                steps[source] = here
                queue[tail] = source
                tail += 1
    return count
