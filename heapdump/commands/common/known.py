"""The facts that are known of a dump when a command is interrupted, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from heapdump.render import text

if TYPE_CHECKING:
    from heapdump.snapshot import Snapshot


def known_lines(snapshot: Snapshot) -> Iterator[str]:
    """Lines on the facts that the snapshot has computed already; nothing is computed."""
    made = vars(snapshot)
    if "process" in made:
        process = snapshot.process
        image = (process.image or "unknown image").replace("/", "\\").rpartition("\\")[2]
        yield f"{image}, pid {process.pid}, {process.arch}, {text.plural(len(process.threads), 'thread')}"
    if "heaps" in made:
        committed = sum(heap.committed_bytes or 0 for heap in snapshot.heaps)
        large = sum(heap.large_committed_bytes or 0 for heap in snapshot.heaps)
        sizes = f"{text.size(committed)} committed in segments, {text.size(large)} in large blocks"
        yield f"{text.plural(len(snapshot.heaps), 'heap')}: {sizes}"
    if "walk" in made:
        counts = snapshot.walk.counts.values()
        busy, size = sum(one.busy_blocks for one in counts), sum(one.busy_bytes for one in counts)
        yield f"{text.plural(busy, 'busy block')} with {text.size(size)}"
        yield from (finding.message for finding in snapshot.walk.findings[:5])
    elif "heaps" in made:
        yield "the walk of the heaps is not finished"
