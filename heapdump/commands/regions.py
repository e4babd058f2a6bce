"""`regions`: every address range as WinDbg's `!address` lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.addresses import place_span
from heapdump.commands.common.gaps import heap_gaps
from heapdump.commands.common.options import OptionWords, option
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.unnamed_words import described_memory
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, StyledLine, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.commands.common.unnamed_words import DescribedMemory
    from heapdump.memory.regions import Region

USAGE_STYLES = {
    "Free": "dim", "Heap": "cyan", "PageHeap": "cyan", "Image": "green", "Stack": "yellow", "TEB": "blue",
    "PEB": "blue", "Other": "blue", "<unknown>": "magenta",
}  # fmt: skip


def usage_style(usage: str) -> str:
    """The colour of a usage, the same in every table."""
    return USAGE_STYLES.get(usage.removesuffix("32").removesuffix("64"), "")


def usage_words(region: Region) -> str:
    """`Stack [~3 tid 0x1b3c]`."""
    return f"{region.usage} [{region.detail}]" if region.detail else region.usage


def _record(region: Region) -> Record:
    return {
        "address": hex(region.span.start),
        "size": region.span.size,
        "allocation_base": hex(region.allocation_base) if region.state.name != "MEM_FREE" else None,
        "state": region.state.name if region.state else None,
        "type": region.type.name if region.type else None,
        "protect": region.protection,
        "usage": region.usage,
        "detail": region.detail,
        "bytes_in_dump": region.bytes_in_dump,
        "evidence": region.evidence or None,
        "trust": region.trust,
    }


def _start(region: Region) -> str:
    starts = region.span.start == region.allocation_base and region.state.name != "MEM_FREE"
    return f"{'+' if starts else ' '} {region.span.start:#x}"


VIEW: tuple[Column[Region], ...] = (
    Column("BaseAddr", _start, "start of the range; + marks the start of an allocation (MemoryInfo BaseAddress = AllocationBase)", right=True),
    Column("EndAddr", lambda r: f"{r.span.end:#x}", "first address behind the range", right=True, rank=2),
    Column("RgnSize", lambda r: f"{r.span.size:#x}", "bytes, hex, as WinDbg prints them", right=True, rank=3),
    size_column("Size", lambda r: r.span.size, "the same in units of 1024"),
    Column("State", lambda r: r.state.name.removeprefix("MEM_"), "MEM_COMMIT, MEM_RESERVE or MEM_FREE (MemoryInfo State)"),
    Column("Type", lambda r: r.type.name.removeprefix("MEM_") if r.type else "", "MEM_PRIVATE, MEM_MAPPED or MEM_IMAGE (MemoryInfo Type)", rank=1),
    Column("Protect", lambda r: (r.protection or "").replace("PAGE_", ""), "MemoryInfo Protect; empty for reserved memory", rank=1),
    Column("InDump", lambda r: text.size(r.bytes_in_dump) if r.bytes_in_dump else "", "bytes of the range that the dump holds", right=True, rank=4),
    Column("Usage", usage_words, "what it is for, by modules, TEBs, PEBs, heap lists, else <unknown> with its first bytes", flexible=34, wraps=True, style=lambda r: usage_style(r.usage)),
)  # fmt: skip


def _page(table: Table[Region], asked: list[Region], about: DescribedMemory | None) -> Iterator[PageItem]:
    """The table; of one region that was asked for the evidence too, and what is known of memory that nothing names."""
    yield table
    lines: list[StyledLine] = [[("evidence: ", "bold"), (one.evidence, "")] for one in asked if one.evidence]
    lines += about.lines() if about is not None else ()
    if lines:
        yield Lines(lines)


_STATES = OptionWords(["commit", "reserve", "free"], {f"MEM_{word}": word for word in ("commit", "reserve", "free")})
_TYPES = OptionWords(["private", "mapped", "image"], {f"MEM_{word}": word for word in ("private", "mapped", "image")})


@option("--usage", metavar="U", help="Only this usage: Heap, Stack, Image, Free, '<unknown>' …")
@option("--state", type=_STATES, help="Only this state.")
@option("--type", "type_", type=_TYPES, help="Only this type.")
@option("--protect", metavar="P", help="Only protections that contain this word: READWRITE, EXECUTE, GUARD …")
@option("--at", metavar="A[..B]", help="Only ranges that hold an address, or one from A up to B.")
@dump_command("regions", takes_expressions=True)
def command(
    request: Request, usage: str | None, state: str | None, type_: str | None, protect: str | None, at: str | None
) -> int:
    """Every address range of the process, as !address.

    With --at, also who refers to memory of unknown use.

    \b
    heapdump regions crash.dmp --usage '<unknown>' --sort size
    heapdump regions crash.dmp --at 0x29fb0000
    """
    from heapdump.analyses.memory.regions import select

    with request.open() as snapshot:
        place = place_span(request, snapshot, at)
        found = select(snapshot.usage, usage=usage, state=state, type_=type_, protect=protect, at=place)
        rows = request.rows(found, _record)
        shown, hidden = request.shown(rows)
        about = described_memory(request, snapshot, place.start) if at and ".." not in at and place else None
        more = {} if about is None else about.record()
        empty = f"no region at {at}" if at else "no matching regions"
        answer = Answer(
            "regions",
            data=lambda: [_record(row) | more for row in rows],
            records=lambda: (_record(row) for row in rows),
            page=lambda: _page(Table(VIEW, shown, hidden=hidden, empty=empty), rows if at else [], about),
            gaps=(*snapshot.gaps, *heap_gaps(snapshot.heaps)),
        )
        return request.emit(snapshot, answer)
