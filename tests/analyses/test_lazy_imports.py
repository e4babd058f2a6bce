"""Analyses that every first page needs do not load what only a crash or the pointer graph needs."""

from __future__ import annotations

import subprocess
import sys

_NOT_NEEDED = (
    "heapdump.analyses.graph.overview",
    "heapdump.analyses.types.block_types",
    "heapdump.process.stacks.faulting",
    "heapdump.process.symbols.namer",
)


def test_headlines_and_reports_load_neither_graph_nor_stack_walk() -> None:
    code = "import sys, heapdump.analyses.headlines, heapdump.analyses.damage.incidents; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in _NOT_NEEDED if name in loaded]
