"""The whole ladder on one dump, from the file to the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heapdump.analyses.headlines import HeadlineFacts, headlines
from heapdump.analyses.memory.capabilities import capabilities
from heapdump.analyses.memory.regions import select
from heapdump.analyses.memory.summary import Summary, summarize
from heapdump.errors import HeapdumpError
from heapdump.snapshot import open_dump


def climb(path: Path) -> Summary:
    """Every question heapdump answers today, asked once; the summary."""
    with open_dump(path) as snapshot:
        process, heaps = snapshot.process, snapshot.heaps
        summary = summarize(snapshot.usage, heaps, snapshot.walk)
        headlines(HeadlineFacts(process, heaps, snapshot.walk, summary, snapshot.crash))
        snapshot.crt.blocks(np.arange(len(snapshot.walk.table)))
        for heap in heaps:
            snapshot.page_nodes(heap)
        graph, references = snapshot.graph, snapshot.references(snapshot.namer())
        assert len(snapshot.reached.state) == len(graph) and snapshot.retained.total <= int(graph.size.sum())
        for node in snapshot.retained.top(3).tolist():
            assert references.paths(node)
        capabilities(process, heaps)
        for region in select(snapshot.usage):
            assert region.span.size > 0
        for thread in process.threads:
            process.where(thread.ip or 0)
        assert sum(item.bytes for item in summary.reconciliation) == summary.committed_bytes
        return summary


def survives(path: Path) -> bool:
    """True where the ladder could be climbed, False where heapdump refused; any other exception comes through."""
    try:
        climb(path)
    except HeapdumpError as error:
        assert str(error)
        return False
    return True
