"""All containers whose elements lie in one block, of every library that is known here.

In: the pointer graph. Out: `ContainerTable`. Candidates of Qt, Rust, MFC, libc++ and arrays with a capacity are found
by `kernels.counted_members`, and proven by one function for each kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.candidates import Candidates, search_candidates
from heapdump.analyses.containers.counted_arrays import prove_counted_arrays, prove_mfc_arrays
from heapdump.analyses.containers.flags import ContainerFlags
from heapdump.analyses.containers.hash_maps import prove_hash_maps
from heapdump.analyses.containers.members_in_common import in_common
from heapdump.analyses.containers.qt_arrays import prove_qt5_arrays, prove_qt5_lists, prove_qt6_arrays
from heapdump.analyses.containers.rust_maps import RUST
from heapdump.analyses.containers.strings import prove_cstrings, prove_llvm_strings
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import ContainerTable, find_containers
from heapdump.process.model import Process
from heapdump.runtimes.owners.owner import Program
from heapdump.runtimes.owners.presence import Presence

_MFC = Program(modules=("mfc*.dll",), texts=(b"CWinThread\0",))


def find_buffers(process: Process, graph: PointerGraph, flags: ContainerFlags) -> ContainerTable:
    """The containers in all nodes and in the data of modules; a buffer belongs to one. `flags`: of the nodes."""
    memory = process.space.mapped
    found = [find_containers(memory, graph, flags.wanted)]
    candidates = search_candidates(memory, graph, flags)
    widths = graph.widths[candidates.block]
    for width in np.unique(widths).tolist():
        found += _proven(process, candidates.take(widths == width))
    columns = ("owner", "offset", "kind", "buffer", "used", "capacity")
    both = ContainerTable(*(np.concatenate([getattr(one, name) for one in found]) for name in columns))
    both = in_common(process, graph, both)
    _, first = np.unique(both.buffer, return_index=True)
    return both.take(np.sort(first))


def _proven(process: Process, candidates: Candidates) -> Iterator[ContainerTable]:
    """The containers among candidates of one width of pointers, the surest kinds first.

    Programs of Rust and MFC are looked for only where their arrays may be.
    """
    for prove in (
        prove_hash_maps, prove_qt6_arrays, prove_qt5_arrays, prove_cstrings, prove_llvm_strings, prove_qt5_lists,
    ):  # fmt: skip
        yield _fitting(candidates, prove(candidates))
    has = partial(_has, Presence(process, [RUST, _MFC]))
    yield _fitting(candidates, prove_mfc_arrays(process, candidates, partial(has, _MFC)))
    yield _fitting(candidates, prove_counted_arrays(candidates, partial(has, RUST)))


def _has(presence: Presence, program: Program) -> bool:
    """True where the program is in the process."""
    return presence.of(program) is not None


def _fitting(candidates: Candidates, found: ContainerTable) -> ContainerTable:
    """Those whose elements have room in their buffer, which does not hold itself."""
    size = candidates.graph.size[found.buffer].astype(np.int64)
    good: NDArray[np.bool_] = (found.owner != found.buffer) & (found.used >= 0) & (found.capacity > 0)
    return found.take(good & (found.used <= found.capacity) & (found.capacity <= size))
