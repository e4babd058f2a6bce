"""Searches in the pointer graph: the nodes that given nodes reach, and the edges backwards.

Nodes are numbered 0 to n - 1. `first` is (n + 1,); the edges of node i are `targets[first[i]:first[i + 1]]`. A target
t >= 0 is a pointer to the start of block t; t < 0 is a pointer to the inside of block -1 - t.
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output

_WAITING = 255
"""State of a node that is reached, but whose edges were not followed yet."""


def flood(
    first: ArrayColumn, targets: ArrayColumn, queue: Output, tail: int, mark: int, most: int, later: Output,
    waiting: int, batch: Output, state: Output,
) -> tuple[int, int, int]:  # fmt: skip
    """Gives the state `mark` to the nodes that `queue[:tail]` reaches.

    Stops where the queue is empty or more than `most` nodes wait in it. With `mark` 1 only pointers to starts of blocks
    are followed, to nodes of state 0 or 2; a node of state 0 that is pointed to elsewhere gets state 2 and is added to
    `later`. Any other `mark` follows all pointers, to nodes of state 0.

    Edges of up to 64 nodes are gathered before any is followed, so that the processor waits for memory once for all.

    Args:
        first: see the module.
        targets: see the module.
        queue: (n,) nodes to follow; those of `queue[:tail]` have the state `mark` already.
        tail: number of nodes in the queue.
        mark: the state to give, 1 or above 2.
        most: see above.
        later: (n,) nodes that got state 2.
        waiting: number of nodes in `later`.
        batch: scratch, with room for the edges of any one node.
        state: (n,) state of each node; 0 for a node that is not reached.

    Returns:
        (head, tail, waiting): the nodes of `queue[head:tail]` were not followed; new numbers of nodes.
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
    first: ArrayColumn,
    targets: ArrayColumn,
    queue: Output,
    head: int,
    tail: int,
    mark: int,
    most: int,
    later: Output,
    waiting: int,
    state: Output,
) -> tuple[int, int]:
    """Like `flood`, for long queues: follows nodes in ascending order, in which their edges lie in memory.

    Makes passes over all nodes until a pass has followed `most` or fewer. Arguments as of `flood`, but the waiting
    nodes are `queue[head:tail]`; they get `mark` whatever their state.

    Returns:
        (tail, waiting): the nodes of `queue[:tail]` were not followed; new number of nodes in `later`.
    """
    for k in range(head, tail):
        state[queue[k]] = _WAITING
    followed = most + 1
    while followed > most:
        followed = 0
        for node in range(len(state)):
            if state[node] != _WAITING:
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
                    state[t] = _WAITING
    tail = 0
    for node in range(len(state)):
        if state[node] == _WAITING:
            state[node] = mark
            queue[tail] = node
            tail += 1
    return tail, waiting


def refer(first: ArrayColumn, targets: ArrayColumn, nodes: ArrayColumn, state: Output, mark: int) -> None:
    """Gives the state `mark` to each node of state 0 that one of `nodes`, other than itself, points to."""
    for k in range(len(nodes)):
        node = nodes[k]
        for e in range(first[node], first[node + 1]):
            t = targets[e]
            t = t if t >= 0 else -1 - t
            if t != node and state[t] == 0:
                state[t] = mark


def unreached_before(
    first: ArrayColumn, targets: ArrayColumn, nodes: ArrayColumn, seen: Output, queue: Output, out: Output
) -> int:
    """Writes those of `nodes` to `out`, in their order, that no earlier node of `out` reaches.

    Args:
        first: see the module.
        targets: see the module.
        nodes: (m,) nodes.
        seen: (n,) 1 for nodes through which no path may lead, else 0; becomes 1 for all nodes that are reached.
        queue: (n,) scratch.
        out: (m,).

    Returns:
        The number of nodes in `out`.
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


def invert(first: ArrayColumn, targets: ArrayColumn, place: Output, sources: Output) -> None:
    """Writes the edges backwards: to `sources`, from index `place[t]` on, the nodes that point to node t.

    A node that points to the start of t is written as it is, a node that points to its inside as -1 - node.

    Args:
        first: see the module.
        targets: see the module.
        place: (n,) first index for each node; becomes the index behind its last one.
        sources: (edges,).
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


def count_targets(targets: ArrayColumn, counts: Output) -> None:
    """Adds one to `counts[node]` for each edge to the node."""
    for e in range(len(targets)):
        t = targets[e]
        counts[t if t >= 0 else -1 - t] += 1


def trace(
    first: ArrayColumn,
    sources: ArrayColumn,
    node: int,
    held: ArrayColumn,
    least: int,
    most: int,
    steps: Output,
    queue: Output,
    out: Output,
) -> int:
    """Searches backwards from a node, nearest nodes first, and writes the nodes with `held[i] >= least` to `out`.

    Args:
        first: (n + 1,) of the edges backwards.
        sources: the edges backwards, as `invert` writes them.
        node: where the search begins.
        held: (n,) how roots hold each node, as a number.
        least: see above.
        most: the search gives up after this many nodes.
        steps: (n,) of -1; gets for each node met the next node on the path to `node`, for `node` itself `node`.
        queue: (n,) scratch.
        out: the search ends when it is full.

    Returns:
        The number of nodes in `out`; -1 where the search gave up.
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
