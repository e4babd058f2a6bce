"""The NT heap, XP to 11: back end, LFH, lookaside lists, large blocks (docs/reference/heap-structures.md §2, §3).

From a claim to the record of a heap: `modern` or `pre_vista` verify it; `segments`, `pre_vista_segments`,
`large_block_list` and `missing_nodes` read its lists, `keyed_segments` finds segments without them; `discovery`
makes the record, `headless` where the heap's own header is missing. From memory to rows, in the order of the steps:

1. `work` and `walk` cut the heaps into shares for threads; `windows` puts committed runs before 64-bit words.
2. `entry_format`: where the header word of an entry lies, its key. `header_word`: its members and its checksum.
3. `chain`: entry to entry by Size. `back_end`: run to run. `resync`, `damaged_header`, `header_repair`: past damage;
   `in_place`: over headers that ntdll works on; `segment_headers`, `segment_repair`: headers of segments; `holes`,
   `missing`: behind memory that the dump lacks.
4. `unused_bytes`: from UnusedBytes to requested bytes, of entries and LFH blocks alike. Then the row is added.
5. LFH: `lfh_user_blocks` finds the user blocks among the rows. `lfh_members` reads the members of user blocks and
   subsegments. `lfh_encoding` has the encoding of block headers by build. Where members contradict each other,
   `lfh_recovery` places the blocks by their headers and `lfh_damage` reports. Where the entry of the user blocks could
   not be placed (`unplaced_spans`), `lfh_by_headers` finds them by the headers of their blocks. `lfh_states` decides
   between busy and free. `lfh_subsegments` calls these steps in order, `lfh_blocks` adds the rows.
6. `large_block_rows`; `pre_vista_states` with `lookaside_lists`: states that are not in headers before Vista.

After the walk: `traces` reads recorded stacks; `check` with `entry_check`, `unused_check`, `cookie_check`,
`free_lists`, `lookaside_check`, `lock` and `self_checks` looks for damage. `context` defines the contexts that these
functions share.
"""

from __future__ import annotations

from collections.abc import Iterable

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.walk import Check, HeapCount, Walk
from heapdump.heaps.allocator import HEAP_SIGNATURE, SEGMENT_SIGNATURE, DiscoveryContext, HeapClaim
from heapdump.heaps.candidates import reservations_with
from heapdump.heaps.jobs import AllocatorJob, CheckJob, TraceReader
from heapdump.heaps.nt import headless, modern, pre_vista
from heapdump.process.model import Process, View


class NtAllocator:
    """NT heaps of every version: those of Vista and later (`modern`), and those before (`pre_vista`)."""

    kind = HeapKind.NT
    block_kinds = (BlockKind.BACKEND, BlockKind.LFH, BlockKind.VIRTUAL, BlockKind.LOOKASIDE)

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The claim with the higher score, of Vista and later or of the versions before."""
        claims = [modern.claim(view, address, is_listed=is_listed), pre_vista.claim(view, address, is_listed=is_listed)]
        is_missing = view.space.try_integer(address + 2 * view.pointer_bytes, 4) is None
        if is_listed or is_missing:  # then it is listed or one of `candidates_without_header`
            claims.append(headless.claim_without_header(view, address))
        return max((claim for claim in claims if claim is not None), key=lambda claim: claim.score, default=None)

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Starts of reservations that begin with the header of a heap, not with that of a later segment.

        Also those that hold the entries of a heap though its signature is not in the dump.
        """
        words = (SEGMENT_SIGNATURE, HEAP_SIGNATURE)
        found = reservations_with(process, view, words)
        yield from (address for address in found if not modern.is_later_segment(view, address))
        yield from headless.candidates_without_header(process, view)

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """The record of the claimed heap: header, segments, large blocks, Windows' counters."""
        if claim.doubts in (headless.NO_HEADER, headless.OVERWRITTEN):
            return headless.describe_without_header(context, claim, index)
        is_modern = claim.layout is not None and modern.is_modern(claim.layout)
        return (modern.describe if is_modern else pre_vista.describe)(context, claim, index)

    def walk(self, job: AllocatorJob) -> None:
        """Walks all heaps together, in the order of addresses."""
        from heapdump.heaps.nt.walk import walk_nt_heaps

        walk_nt_heaps(job)

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """Compares free bytes, committed bytes, number of segments, bytes of large blocks."""
        from heapdump.heaps.nt.self_checks import self_checks

        return self_checks(process, heap, count)

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """The reader of the addresses of trace records before user data, and of stack indices behind it."""
        from heapdump.heaps.nt.traces import nt_traces

        return nt_traces(view, heap, walk.table)

    def check(self, job: CheckJob) -> bool:
        """Checks header bytes and fills of every entry, lookaside lists, free lists, counters."""
        from heapdump.heaps.nt.check import check_nt_heap

        check_nt_heap(job)
        return True


ALLOCATOR = NtAllocator()
