"""`search PATTERN`: every place that holds a text, a pointer or bytes, and whose memory it is."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heapdump.commands.common.addresses import address_in, span_in
from heapdump.commands.common.blocks import BlockRecorder
from heapdump.commands.common.options import option
from heapdump.commands.common.pointees import POINTEE_MEMBERS, STYLES, pointee_record, pointees_of
from heapdump.commands.common.request import Arguments, Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.by_hand.pointees import Pointee, Pointees
    from heapdump.analyses.by_hand.search import Hit
    from heapdump.snapshot import Snapshot

_MOST_HITS = 100_000


def split_arguments(arguments: tuple[str, ...]) -> dict[str, Any]:
    """`dump` and `pattern` of [DUMP] PATTERN.

    Raises:
        WrongUsage: no pattern, or too many arguments.
    """
    if len(arguments) == 1 and Path(arguments[0]).is_file():
        raise WrongUsage(f"{arguments[0]} is a file; name what to look for, too: heapdump search {arguments[0]} 'text'")
    if not 1 <= len(arguments) <= 2:
        raise WrongUsage(f"one dump and one pattern, not {len(arguments)} arguments; quote a text with blanks")
    return {"dump": Path(arguments[0]) if len(arguments) == 2 else None, "pattern": arguments[-1]}


@option("--at", metavar="A..B", help="Only from A up to, not including, B.")
@option("--usage", metavar="U", help="Only memory of this usage: Heap, Stack, Image, '<unknown>' …")
@option(
    "--as", "form", type=click.Choice(["auto", "text", "pointer", "bytes"]), default="auto", show_default=True,
    help="What the pattern is. auto: 0x… a pointer, hex:… bytes, else a text; pointer: an expression.",
)  # fmt: skip
@option("--count", type=int, default=_MOST_HITS, show_default=True, metavar="N", help="Stop after N places.")
@dump_command("search", takes_expressions=True, arguments=Arguments("[DUMP] PATTERN", split_arguments))
def command(request: Request, pattern: str, at: str | None, usage: str | None, form: str, count: int) -> int:
    """Every place that holds a text, a pointer or bytes.

    A text is found as ASCII (UTF-8) and as UTF-16.

    \b
    heapdump search crash.dmp 'connection lost'
    heapdump search crash.dmp 0x43500060 --usage Stack
    heapdump search crash.dmp hex:deadbeef --at 0x29fb0000..0x2a000000
    heapdump search crash.dmp 'ntdll!RtlFreeHeap' --as pointer
    """
    from heapdump.analyses.by_hand.search import find_all, searched_spans

    if count < 1:
        raise WrongUsage(f"--count {count} is less than 1")
    with request.open() as snapshot:
        space = snapshot.process.space
        wanted = _patterns(request, snapshot, pattern, form)
        spans = searched_spans(snapshot.usage, usage, span_in(request, snapshot, at) if at else None)
        found_places = find_all(space, spans, wanted)
        hits = list(itertools.islice(found_places, min(count, sys.maxsize)))
        is_cut = next(found_places, None) is not None
        found = _SearchHits(request, snapshot, hits)
        rows = request.rows(hits, found.short_record)
        answer = Answer(
            "search",
            data=lambda: found.records(rows),
            records=lambda: found.records(rows),
            page=lambda: found.page(rows),
            gaps=(f"stopped after {count:,} places; a longer pattern, --at or --usage narrows it",) if is_cut else (),
            nested={"lies_in": POINTEE_MEMBERS},
        )
        return request.emit(snapshot, answer)


def _patterns(request: Request, snapshot: Snapshot, pattern: str, form: str) -> tuple[bytes, ...]:
    """The byte strings to look for."""
    from heapdump.analyses.blocks.search import patterns, text_bytes

    sizes = tuple(sorted({view.pointer_bytes for view in snapshot.process.views}))
    if form == "pointer":
        pattern = hex(address_in(request, snapshot, pattern))
    elif form == "bytes" and not pattern.startswith("hex:"):
        pattern = f"hex:{pattern}"
    elif form == "text" and pattern:
        return text_bytes(pattern)
    found = patterns(pattern, sizes)
    return found[:1] if len(found) > 1 and found[1].startswith(found[0]) else found


@dataclass(frozen=True)
class _SearchHits:
    """The places that were found."""

    request: Request
    snapshot: Snapshot
    hits: Sequence[Hit]

    @cached_property
    def _pointees(self) -> Pointees:
        namer = self.snapshot.namer(self.request.image_path, self.request.symbol_path)
        return pointees_of(self.snapshot, namer, quotes=False)

    def short_record(self, hit: Hit) -> Record:
        """The members that --sort takes."""
        return {"address": hex(hit.address), "usage": self.usage(hit)}

    def usage(self, hit: Hit) -> str:
        """The usage of the memory there."""
        from heapdump.analyses.by_hand.search import usage_at

        return usage_at(self.snapshot.usage, hit.address)

    def text(self, hit: Hit) -> str:
        """The text around it."""
        from heapdump.analyses.by_hand.search import text_around

        return text_around(self.snapshot.process.space, hit)

    def owner(self, hit: Hit) -> Pointee | None:
        """The thing that the place lies in: block, stack, module or region; None for none."""
        return self._pointees.at(hit.address)

    def records(self, hits: Sequence[Hit]) -> Iterator[Record]:
        """The JSON records, one after the other."""
        from heapdump.analyses.blocks.locate import locate

        recorder = BlockRecorder(self.snapshot)
        for hit in hits:
            owner = self.owner(hit)
            block = None
            if owner is not None and owner.kind == "block":
                block = locate(self.snapshot.walk.table, self.snapshot.process.space, hit.address).block
            yield self.short_record(hit) | {
                "block": recorder(block) if block is not None else None,
                "text": self.text(hit),
                "lies_in": pointee_record(owner),
            }

    def page(self, hits: Sequence[Hit]) -> Iterator[PageItem]:
        """The table, and how many there are by usage."""
        shown, hidden = self.request.shown(hits)
        columns: tuple[Column[Hit], ...] = (
            Column("Address", lambda h: f"{h.address:#x}", "of the first byte", right=True),
            Column("Usage", self.usage, "of the memory there, as regions has it"),
            Column(
                "LiesIn",
                self._owner_words,
                "block, stack, module or region",
                rank=1,
                flexible=24,
                wraps=True,
                style=self._style,
            ),
            Column(
                "Text", self.text, "the text around it, dots for bytes that are not printable", flexible=24, wraps=True
            ),
        )
        yield Table(columns, shown, hidden=hidden, empty="no place holds that")
        if hits:
            counts: dict[str, int] = {}
            for hit in hits:
                usage = self.usage(hit)
                counts[usage] = counts.get(usage, 0) + 1
            words = ", ".join(
                f"{usage} {count:,}" for usage, count in sorted(counts.items(), key=lambda item: -item[1])
            )
            yield Lines([[(f"{text.plural(len(hits), 'place')}: {words}", "")]])

    def _owner_words(self, hit: Hit) -> str:
        owner = self.owner(hit)
        return owner.text if owner else ""

    def _style(self, hit: Hit) -> str:
        owner = self.owner(hit)
        return STYLES[owner.kind] if owner else ""
