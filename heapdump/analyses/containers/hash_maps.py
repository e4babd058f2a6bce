"""Hash maps of Rust (`HashMap`, `HashSet`): buckets, then a byte of control for each, in one block.

    owner { control bytes; buckets - 1; room; elements }, or { buckets - 1; control bytes; room; elements }
    block { buckets, the last one first; a byte for each bucket; the first 16 of them again }

Source: `RawTable` of hashbrown. Witnesses: the block ends with the control bytes; as many of these have a clear upper
bit as there are elements; elements and room are no more than the buckets.
"""

from __future__ import annotations

import numpy as np

from heapdump.analyses.containers.candidates import Candidates
from heapdump.analyses.types.members import Container, ContainerTable
from heapdump.kernels import counted_members

_STEP = 4
"""The number of buckets is a multiple of it."""

_UPPER_BITS = (7, 15, 23, 31)
"""Of four control bytes; set in those of empty and deleted buckets."""


def prove_hash_maps(candidates: Candidates) -> ContainerTable:
    """The hash maps whose control bytes say as many elements as the owner."""
    found = candidates.of(counted_members.HASHBROWN)
    first = found.word(0)
    control = np.where(first == found.held - 1, found.word(1), first)
    steps = found.held // _STEP
    of = np.repeat(np.arange(len(found)), steps)
    number = np.arange(len(of)) - np.repeat(np.cumsum(steps) - steps, steps)
    value = found.value(control[of] + _STEP * number, _STEP)
    full = sum(~value >> bit & 1 for bit in _UPPER_BITS)
    good = np.bincount(of, full, minlength=len(found)) == found.used
    element = (control - found.start) // np.maximum(found.held, 1)
    good &= (element > 0) & (control - found.start - element * found.held < 2 * found.width)
    found, element = found.take(good), element[good]
    return found.table(Container.HASH_MAP, found.used * element, found.held * element)
