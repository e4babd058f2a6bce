"""Whether the roots lead into the heaps at all: where none does, unreachable blocks are no leak."""

from __future__ import annotations

import numpy as np

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.roots import RootKind
from heapdump.process.model import Process

NO_WAY_IN = "no root of the program leads into any heap: do not read this as a leak"
"""The roots are not where they are looked for: pointers are encoded, or the dump was not taken of a running program."""

_ENVIRONMENT = (RootKind.TEB, RootKind.PEB)


def has_way_in(process: Process, graph: PointerGraph) -> bool:
    """True where a register, a stack or other writable memory points into a block.

    ntdll's data, TEBs and PEBs do not count. Also True for a graph without blocks, and where memory or registers that
    can hold pointers are not in the dump.
    """
    if not len(graph) or graph.roots.missing or (graph.register_targets >= 0).any():
        return True
    ntdll = [module.span for module in process.modules if module.name.lower() == "ntdll.dll"]
    counts = graph.root_edges.degree
    for i in np.flatnonzero(counts).tolist():
        area = graph.roots.areas[i]
        if area.kind not in _ENVIRONMENT and not any(area.span.start in span for span in ntdll):
            return True
    return False
