"""`regions`: every address range as WinDbg's `!address` lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from heapdump.commands.common.addresses import address_in
from heapdump.commands.common.gaps import heap_gaps
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.unnamed_words import described_memory
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, StyledLine, Table

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
    Column("RgnSize", lambda r: f"{r.span.size:#x}", "bytes, hex, as WinDbg prints them", right=True),
    Column("Size", lambda r: text.size(r.span.size), "the same in units of 1024", right=True, rank=3),
    Column("State", lambda r: r.state.name.removeprefix("MEM_"), "MEM_COMMIT, MEM_RESERVE or MEM_FREE (MemoryInfo State)"),
    Column("Type", lambda r: r.type.name.removeprefix("MEM_") if r.type else "", "MEM_PRIVATE, MEM_MAPPED or MEM_IMAGE (MemoryInfo Type)", rank=1),
    Column("Protect", lambda r: (r.protection or "").replace("PAGE_", ""), "MemoryInfo Protect; empty for reserved memory", rank=1),
    Column("InDump", lambda r: text.size(r.bytes_in_dump) if r.bytes_in_dump else "", "bytes of the range that the dump holds", right=True, rank=4),
    Column("Usage", usage_words, "what it is for, by modules, TEBs, PEBs, heap lists, else <unknown> with its first bytes", flexible=34, style=lambda r: usage_style(r.usage)),
)  # fmt: skip


def _page(table: Table[Region], asked: list[Region], about: DescribedMemory | None) -> Iterator[PageItem]:
    """The table; of one region that was asked for the evidence too, and what is known of memory that nothing names."""
    yield table
    lines: list[StyledLine] = [[("evidence: ", "bold"), (one.evidence, "")] for one in asked if one.evidence]
    lines += about.lines() if about is not None else ()
    if lines:
        yield Lines(lines)


@click.option("--usage", metavar="U", help="Only this usage: Heap, Stack, Image, Free, '<unknown>' …")
@click.option(
    "--state", type=click.Choice(["commit", "reserve", "free"], case_sensitive=False), help="Only this state."
)
@click.option(
    "--type", "type_", type=click.Choice(["private", "mapped", "image"], case_sensitive=False), help="Only this type."
)
@click.option("--protect", metavar="P", help="Only protections with this word: READWRITE, EXECUTE, GUARD …")
@click.option("--at", metavar="ADDR", help="Only the range that holds this address.")
@dump_command("regions", takes_expressions=True)
def command(
    request: Request, usage: str | None, state: str | None, type_: str | None, protect: str | None, at: str | None
) -> int:
    """Every address range of the process, as WinDbg's !address lists it.

    With --at also who refers to memory that nothing names.

    \b
    heapdump regions crash.dmp --usage '<unknown>' --state commit --sort size --reverse
    heapdump regions crash.dmp --at 0x29fb0000
    """
    from heapdump.analyses.memory.regions import select

    with request.open() as snapshot:
        address = address_in(request, snapshot, at) if at else None
        found = select(snapshot.usage, usage=usage, state=state, type_=type_, protect=protect, address=address)
        rows = request.rows(found, _record)
        shown, hidden = request.shown(rows)
        about = described_memory(request, snapshot, address) if address is not None else None
        more = {} if about is None else about.record()
        empty = f"no region holds {address:#x}" if address is not None else "no region like that"
        answer = Answer(
            "regions",
            data=lambda: [_record(row) | more for row in rows],
            records=lambda: (_record(row) for row in rows),
            page=lambda: _page(Table(VIEW, shown, hidden=hidden, empty=empty), rows if at else [], about),
            gaps=(*snapshot.gaps, *heap_gaps(snapshot.heaps)),
        )
        return request.emit(snapshot, answer)
