"""Room 6, walkers, one for each heap kind. A new kind is a new file here with a `WALKER`.

In comes the process, out come `Heap` records. Each address of the heap list is offered to every walker; the claim with
the most witnesses wins, and what nobody claims is `unknown`, with the reason. A kind may also bring `WALK`, the function
that walks one heap, `TRACES`, the one that reads which allocation stack its blocks have, and `CHECK`, the one that examines
a walked heap for damage: in the file named as the kind, or in `<kind>_walk.py`, `<kind>_traces.py`, `<kind>_check.py`.

Decision: walkers are found by importing modules of this folder, those of one word and `*_walker.py` (chap's finders);
nothing above knows which kinds exist, and what walks a kind is loaded when a heap of it is there. Given up: a static list;
importing all modules of the folder (0.04 s of every command).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from heapdump.blocks.heap import Heap, HeapKind
from heapdump.heaps.allocator import DiscoveryContext, HeapClaim, Walker
from heapdump.heaps.candidates import heap_addresses
from heapdump.heaps.jobs import CheckHeap, ReadTraces, WalkHeap
from heapdump.process.model import Process, View

_PLACES: dict[str, dict[HeapKind, str]] = {
    "WALK": {HeapKind.SEGMENT: "segment.walk", HeapKind.PAGE: "page.walk"},
    "TRACES": {HeapKind.NT: "nt.traces", HeapKind.SEGMENT: "segment.traces", HeapKind.PAGE: "page.traces"},
    "CHECK": {HeapKind.NT: "nt.check", HeapKind.SEGMENT: "segment.check", HeapKind.PAGE: "page.check"},
}
_WALKERS = ("nt.modern", "nt.pre_vista", "page.discovery", "segment.discovery", "unknown")


@cache
def walkers() -> tuple[Walker, ...]:
    """Every `WALKER` of this folder."""
    return tuple(_module(name).WALKER for name in _WALKERS)


def walk_of(kind: HeapKind) -> WalkHeap | None:
    """How to walk one heap of a kind; NT heaps are walked all together instead, see `walk`."""
    walk: WalkHeap | None = _brought(kind, "WALK")
    return walk


def trace_reader(kind: HeapKind) -> ReadTraces | None:
    """Where the allocation stacks of a kind's blocks are recorded."""
    read: ReadTraces | None = _brought(kind, "TRACES")
    return read


def check_of(kind: HeapKind) -> CheckHeap | None:
    """What else of a walked heap of a kind can be examined."""
    check: CheckHeap | None = _brought(kind, "CHECK")
    return check


def _brought(kind: HeapKind, name: str) -> Callable[..., Any] | None:
    """What a kind brings under a name, or None."""
    place = _PLACES[name].get(kind)
    return None if place is None else getattr(_module(place), name)


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")


def discover(process: Process) -> tuple[Heap, ...]:
    """Every heap of every view, in the order of the heap lists; `index` counts on across views as in `!heap`."""
    heaps: list[Heap] = []
    for view in process.views:
        context = DiscoveryContext(process, view)
        offered, waiting = set[int](), deque(heap_addresses(process, view))
        while waiting:
            address, is_listed = waiting.popleft()
            if address not in offered:
                offered.add(address)
                walker, claim = best_claim(view, address, is_listed=is_listed)
                heaps.append(walker.describe(context, claim, len(heaps)))
                waiting.extend((other, True) for other in claim.linked)
    return tuple(heaps)


def best_claim(view: View, address: int, *, is_listed: bool) -> tuple[Walker, HeapClaim]:
    """The walker with the most witnesses for this address; the one for unknown heaps always has none."""
    claims = [(w, c) for w in walkers() if (c := w.claims(view, address, is_listed=is_listed)) is not None]
    return max(claims, key=lambda pair: len(pair[1].witnesses))
