"""Room 6, walkers, one for each heap kind. A new kind is a new file here with a `WALKER`.

In comes the process, out come `Heap` records. Each address of the heap list is offered to every walker; the claim with
the most witnesses wins, and what nobody claims is `unknown`, with the reason. A module may also bring `WALK`, the kind
of heap and the function that walks one, `TRACES`, the kind and the function that reads which allocation stack its blocks
have, and `CHECK`, the kind and the function that examines a walked one for damage.

Decision: walkers are found by importing the modules of this folder (chap's finders); nothing above knows which kinds
exist. Given up: a static list.
"""

from __future__ import annotations

import pkgutil
from collections import deque
from functools import cache
from importlib import import_module
from typing import Any

from heapdump.blocks.records import Heap, HeapKind
from heapdump.heaps.base import Claim, Context, Walker
from heapdump.heaps.listing import heap_addresses
from heapdump.heaps.walked import CheckHeap, ReadTraces, WalkHeap
from heapdump.process.model import Process, View


def walkers() -> tuple[Walker, ...]:
    """Every `WALKER` of this folder, sorted by module name."""
    return _brought("WALKER")


def walks() -> dict[HeapKind, WalkHeap]:
    """Every `WALK`: how to walk one heap of a kind; NT heaps are walked all together instead, see `walk`."""
    return dict(_brought("WALK"))


def trace_readers() -> dict[HeapKind, ReadTraces]:
    """Every `TRACES`: where the allocation stacks of a kind's blocks are recorded."""
    return dict(_brought("TRACES"))


def checks() -> dict[HeapKind, CheckHeap]:
    """Every `CHECK`: what else of a walked heap of a kind can be examined."""
    return dict(_brought("CHECK"))


@cache
def _brought(name: str) -> tuple[Any, ...]:
    """What the modules of this folder bring under a name, sorted by module name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [import_module(f"{__name__}.{module}") for module in names]
    return tuple(getattr(module, name) for module in modules if hasattr(module, name))


def discover(process: Process) -> tuple[Heap, ...]:
    """Every heap of every view, in the order of the heap lists; `index` counts on across views as in `!heap`."""
    heaps: list[Heap] = []
    for view in process.views:
        context = Context(process, view)
        offered, waiting = set[int](), deque(heap_addresses(process, view))
        while waiting:
            address, is_listed = waiting.popleft()
            if address not in offered:
                offered.add(address)
                walker, claim = best_claim(view, address, is_listed=is_listed)
                heaps.append(walker.describe(context, claim, len(heaps)))
                waiting.extend((other, True) for other in claim.linked)
    return tuple(heaps)


def best_claim(view: View, address: int, *, is_listed: bool) -> tuple[Walker, Claim]:
    """The walker with the most witnesses for this address; the one for unknown heaps always has none."""
    claims = [(w, c) for w in walkers() if (c := w.claims(view, address, is_listed=is_listed)) is not None]
    return max(claims, key=lambda pair: len(pair[1].witnesses))
