"""Finds the key of VS chunk headers: the key under which chains of chunks hold (heap-structures.md §6.4, §6.9).

No symbols are needed. Keys are tried in this order:

1. the key of an earlier heap of the view;
2. the HeapKeys by the signatures of segments;
3. the words of ntdll's data (up to 15063 the key is the LfhKey, which is among them);
4. keys solved from the chunks alone (`vs_key_solver`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from heapdump.heaps.integers import signed64
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.vs_chunks import VsChunks, header_fields, read_chunk_header
from heapdump.heaps.segment.vs_key_solver import solve_vs_key, with_busy_bit
from heapdump.heaps.segment.vs_subsegments import VsSubsegments
from heapdump.kernels.row import UNIT
from heapdump.kernels.vs_chain import ChunkCoding
from heapdump.process.model import View
from heapdump.spans import Span

_FEW_CHAINS = 4
_MOST_NTDLL_KEYS = 64
"""The most words of ntdll that are tried for one chain."""

_PROOF_CHUNKS = 8
"""Number of chunks at the start of a chain that prove a key: 15 bits or more must agree in each header."""


def vs_key_of(walk: SegmentWalk, subsegments: VsSubsegments, likely: Sequence[int]) -> int | None:
    """The key of these subsegments; None for no subsegments, and, with a finding and a gap, where no key holds.

    `likely`: the HeapKeys by the signatures of segments.
    """
    chains = subsegments.sample()
    if not chains:
        return None
    key = _known_key(walk, chains, likely)
    if key is None:
        key = solve_vs_key(walk.view, chains)
    elif key != walk.keys.vs_key:
        key = with_busy_bit(walk.view, chains[:: max(1, len(chains) // _FEW_CHAINS)], key)
    if key is not None:
        walk.keys.vs_key = key
        return key
    message = f"no key decodes the chunks of {walk.name}"
    if any(walk.view.space.try_read(chain.start, chain.size) is None for chain in chains):
        walk.add_gap(f"{message}, which are not whole in the dump: the blocks of its VS subsegments are missing")
        return None
    walk.count_headers(1, 0)
    walk.report(
        DamagedBytes("vs_chunk", chains[0].start, walk.granule, "a chain of chunks", "none"), message,
        gap=f"{message}: the blocks of {len(subsegments.start):,} VS subsegments are missing",
    )  # fmt: skip
    return None


def _known_key(walk: SegmentWalk, chains: Sequence[Span], likely: Sequence[int]) -> int | None:
    """The key among those that are stored elsewhere in the process (1. to 3. of the module)."""
    view, known = walk.view, [] if walk.keys.vs_key is None else [walk.keys.vs_key]
    few = chains[:: max(1, len(chains) // _FEW_CHAINS)]
    return (
        _best_key(view, few, known, _holds)
        or _best_key(view, chains, likely, _holds)
        or _best_key(view, chains, [*known, *likely], _holds_somewhere)  # damage at the start of the chains
        or _best_key(view, chains, list(_ntdll_keys(walk, chains)), _holds)
    )


def _best_key(
    view: View, chains: Sequence[Span], keys: Sequence[int], holds: Callable[[View, Span, int], bool]
) -> int | None:
    """The key that holds in most chains, of equal ones the first; None where no key holds in any."""
    scores = {key: sum(holds(view, chain, key) for chain in chains) for key in dict.fromkeys(keys)}
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best is not None and scores[best] else None


def _holds(view: View, chain: Span, key: int) -> bool:
    """True when the first 8 chunks of the chain, or all of a shorter one, hold under the key."""
    at, previous = chain.start, 0
    for _ in range(_PROOF_CHUNKS):
        if at == chain.end:
            return True
        header = read_chunk_header(view, at, key)
        if header is None or not header.holds(previous, (chain.end - at) // view.granularity):
            return False
        at, previous = at + header.size * view.granularity, header.size
    return True


def _holds_somewhere(view: View, chain: Span, key: int) -> bool:
    """True when enough headers in a row hold under the key anywhere in the chain."""
    words, _ = view.space.mapped.words64(chain)
    coding = ChunkCoding(view.granularity // UNIT, signed64(key), padding=0)
    chunks = VsChunks(words, chain.start, chain.size // view.granularity, coding)
    return bool(chunks.sound_from(0, ()))


def _ntdll_keys(walk: SegmentWalk, chains: Sequence[Span]) -> Iterator[int]:
    """Words of ntdll's data under which the first chunk of one of the first few chains holds."""
    words, view = walk.keys.ntdll_words, walk.view
    for chain in chains[:_FEW_CHAINS]:
        raw = view.space.try_pointer(chain.start)
        if raw is None:
            continue
        sizes_word = words ^ np.uint64(raw ^ chain.start)
        size, previous, busy = header_fields(sizes_word.view(np.int64), is_wide=view.pointer_bytes == 8)
        fits = (previous == 0) & (size > 0) & (size <= chain.size // view.granularity) & (busy <= 1)
        yield from words[fits][:_MOST_NTDLL_KEYS].tolist()
