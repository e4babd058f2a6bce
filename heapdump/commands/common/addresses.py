"""Addresses and spans of the command line: expressions, evaluated in the dump that the command has opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.errors import WrongUsage
from heapdump.render import text

if TYPE_CHECKING:
    from heapdump.analyses.by_hand.place import FramePlace
    from heapdump.commands.common.request import Request
    from heapdump.process.symbols.namer import Namer
    from heapdump.snapshot import Snapshot
    from heapdump.spans import Span


def place_of(request: Request, snapshot: Snapshot, namer: Namer | None = None, arch: str | None = None) -> FramePlace:
    """The thread and the frame that --thread and --frame name; `arch`: the half of a WOW64 process."""
    from heapdump.analyses.by_hand.place import FramePlace

    namer = namer or snapshot.namer(request.image_path, request.symbol_path)
    return FramePlace(snapshot.process, namer, request.thread, request.frame, arch)


def address_in(request: Request, snapshot: Snapshot, expression: str) -> int:
    """The address that an expression gives.

    Raises:
        WrongUsage: it gives none.
    """
    from heapdump.analyses.by_hand.expressions import Expressions

    return Expressions(place_of(request, snapshot)).value(expression)


def heap_in(request: Request, snapshot: Snapshot, heap: str | None) -> int | None:
    """The address of the heap that `--heap` names by its address or its index; None for None.

    Raises:
        WrongUsage: there is none of that index, or the expression gives no address.
    """
    if heap is None:
        return None
    number = heap.removeprefix("#")
    if number.isdecimal() and (heap != number or int(number) < len(snapshot.heaps)):
        if int(number) >= len(snapshot.heaps):
            raise WrongUsage(f"no heap {heap}; this process has {text.plural(len(snapshot.heaps), 'heap')}, from #0")
        return snapshot.heaps[int(number)].address
    return address_in(request, snapshot, heap)


def place_span(request: Request, snapshot: Snapshot, place: str | None) -> Span | None:
    """`--at`: a span, or an address as the span of its byte; None for None."""
    return span_in(request, snapshot, place) if place else None


def span_in(request: Request, snapshot: Snapshot, expressions: str) -> Span:
    """`A..B`, `A..` or `..B` as a half-open span, `A` as that address alone; A and B are expressions.

    Raises:
        WrongUsage: one is no address, or B lies below A.
    """
    from heapdump.analyses.by_hand.expressions import Expressions

    return text.parse_span(expressions, Expressions(place_of(request, snapshot)).value, 0)
