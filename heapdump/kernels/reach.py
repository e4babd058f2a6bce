"""Walks over a graph whose edges lie one node behind the other: those of node i are `targets[first[i]:first[i + 1]]`.

A target t < 0 stands for node -1 - t, and for a pointer that does not point at its start.
"""

from __future__ import annotations

from typing import Any

_SEEN_LATER = 255
"""State of a node that is known to be reached and whose edges were not followed yet."""


def flood(
    first: Any,
    targets: Any,
    queue: Any,
    tail: int,
    mark: int,
    most: int,
    later: Any,
    waiting: int,
    batch: Any,
    state: Any,
) -> tuple[int, int, int]:
    """Gives `mark` to what `queue[:tail]` reaches, which have it already, until more than `most` nodes wait in the queue.

    A `mark` of 1 goes by pointers to starts alone, over nodes of state 0 or 2; nodes of state 0 that others point to get
    2 and are added to `later[:waiting]`. Any other `mark` goes by all pointers, over nodes of state 0. Both arrays have
    room for every node; `batch` is scratch, with room for the edges of the node that has most.

    Edges of several nodes are gathered before any is followed, so that the processor waits for memory once for all.

    Returns:
        (head, tail, waiting): those of `queue[head:tail]` were not followed.
    """
    head = 0
    while 0 < tail - head <= most:
        top, total = head, 0
        while top < tail and top - head < 64:
            node = queue[top]
            total += first[node + 1] - first[node]
            if total > len(batch):
                break
            top += 1
        count = 0
        for k in range(head, top):
            node = queue[k]
            for e in range(first[node], first[node + 1]):
                batch[count] = targets[e]
                count += 1
        head = top
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
                queue[tail] = t
                tail += 1
    return head, tail, waiting


def flood_in_order(
    first: Any,
    targets: Any,
    queue: Any,
    head: int,
    tail: int,
    mark: int,
    most: int,
    later: Any,
    waiting: int,
    state: Any,
) -> tuple[int, int]:
    """As `flood`, for more than `most` nodes that wait: follows them in the order of their numbers, as their edges lie.

    Goes over all nodes again and again, until it finds no more than `most` of them waiting. Those of the queue get `mark`,
    too, whatever they had.

    Returns:
        (tail, waiting): those of `queue[:tail]` were not followed.
    """
    for k in range(head, tail):
        state[queue[k]] = _SEEN_LATER
    followed = most + 1
    while followed > most:
        followed = 0
        for node in range(len(state)):
            if state[node] != _SEEN_LATER:
                continue
            state[node] = mark
            followed += 1
            for e in range(first[node], first[node + 1]):
                t = targets[e]
                if t < 0:
                    t = -1 - t
                    if mark == 1:
                        if state[t] == 0:
                            state[t] = 2
                            later[waiting] = t
                            waiting += 1
                        continue
                if state[t] == 0 or (state[t] == 2 and mark == 1):
                    state[t] = _SEEN_LATER
    tail = 0
    for node in range(len(state)):
        if state[node] == _SEEN_LATER:
            state[node] = mark
            queue[tail] = node
            tail += 1
    return tail, waiting


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


def trace(
    first: Any, sources: Any, node: int, held: Any, least: int, most: int, steps: Any, queue: Any, out: Any
) -> int:
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
