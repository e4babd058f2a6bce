"""Arrays with a capacity: a pointer, and beside it the number of elements in use and in all.

The `Vec` and `String` of Rust { capacity; pointer; size }, arrays of Delphi's and of many programs' own libraries. One
such array proves little: the capacity divides the size of a block often enough. Witnesses: several owners of one size
have it at one place, with different capacities and elements of one size; or the elements are bytes, the capacity is
exactly the size of the block, and the array begins with a text. Arrays of MFC (`CArray`, `CByteArray` …) have two more
words, { table of functions; pointer; size; capacity; growth }: where MFC is in the process, one of them is enough.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.candidates import Candidates
from heapdump.analyses.types.containers import IS_TEXT
from heapdump.analyses.types.members import Container, ContainerTable
from heapdump.kernels import counted_members
from heapdump.process.model import Process

_FEWEST, _CAPACITIES = 4, 3
"""Arrays of one member in different owners, and different capacities among them."""

_SHORTEST_TEXT = 8
_MOST_GROWTH = 1 << 20


def prove_mfc_arrays(process: Process, candidates: Candidates, is_mfc: Callable[[], bool]) -> ContainerTable:
    """The arrays of MFC whose capacity fills their block. `is_mfc`: True where MFC is in the process."""
    found = candidates.of(counted_members.COUNTED + 2)
    good = process.in_modules(found.word(-1).astype(np.uint64)) & (found.word(3) <= _MOST_GROWTH)
    found = found.take(good & (np.full(len(found), bool(good.any()) and is_mfc())))
    element = found.size // np.maximum(found.held, 1)
    return found.table(Container.CARRAY, found.used * element, found.held * element)


def prove_counted_arrays(candidates: Candidates, is_rust: Callable[[], bool]) -> ContainerTable:
    """The arrays with a second witness. `is_rust`: True where a program of Rust is in the process."""
    found = candidates.take(candidates.kind >= counted_members.COUNTED)
    element = found.size // np.maximum(found.held, 1)
    is_text = _begin_with_text(found, element)
    good = _are_members_of_many(found, element) | is_text
    found, element, is_text = found.take(good), element[good], is_text[good]
    kind = np.full(len(found), Container.COUNTED, np.int64)
    vecs = found.kind == counted_members.COUNTED
    if vecs.any() and is_rust():
        kind[vecs] = np.where(is_text[vecs], Container.RUST_STRING, Container.VEC)
    used = found.used.copy()
    rings = np.flatnonzero(kind == Container.VEC)
    rings = rings[_are_rings(found.take(rings), element[rings])]
    kind[rings], used[rings] = Container.VEC_DEQUE, found.take(rings).word(3)
    return found.table(kind, used * element, found.held * element)


def _are_rings(found: Candidates, element: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for members { capacity; pointer; first; elements } of which some go round the end of their array; (k,) bool.

    All like members have their first element in the array, and no more than it has room for. A Vec that a number
    follows has neither at random.
    """
    group, many = _groups(found, element)
    count = found.word(3)
    fits = (found.used < found.held) & (count >= 0) & (count <= found.held)
    goes_round = fits & (found.used + count > found.held)
    all_fit = np.bincount(group, ~fits, minlength=len(many)) == 0
    some_go = np.bincount(group, goes_round, minlength=len(many)) > 0
    good: NDArray[np.bool_] = (all_fit & some_go & (many >= _FEWEST))[group]
    return good


def _are_members_of_many(found: Candidates, element: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where the same member of other owners has the same elements and other capacities; (k,) bool."""
    inside = found.owner >= 0
    group, many = _groups(found, element)
    pairs = np.unique(np.stack([group, found.held], axis=1), axis=0)
    different = np.bincount(pairs[:, 0], minlength=len(many))
    good: NDArray[np.bool_] = inside & (many[group] >= _FEWEST) & (different[group] >= _CAPACITIES)
    return good


def _groups(found: Candidates, element: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """((k,) number of the member of like owners, by its elements, how many have each number)."""
    inside = found.owner >= 0
    owner = np.where(inside, found.graph.size[np.maximum(found.owner, 0)].astype(np.int64), -1 - found.offset)
    keys = np.stack([owner, found.offset, found.kind, element], axis=1)
    group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return group, np.bincount(group)


def _begin_with_text(found: Candidates, element: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for bytes that begin with 8 letters of text, and of which none follows that ends it; (k,) bool."""
    good: NDArray[np.bool_] = (element == 1) & (found.used >= _SHORTEST_TEXT)
    rows = np.flatnonzero(good)
    for place in range(_SHORTEST_TEXT):
        good[rows] &= IS_TEXT[found.value(found.start[rows] + place, 1)]
    last = found.value(found.start[rows] + found.used[rows] - 1, 1)
    good[rows] &= IS_TEXT[last]
    return good
