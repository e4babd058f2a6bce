"""`gaps`: what is free in the address space, and who breaks it up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.commands.common.gaps import heap_gaps
from heapdump.commands.common.options import option
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.regions import usage_style
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.memory.address_space import AddressSpaceReport, ExplainedDivider, UsageBytes
    from heapdump.analyses.memory.allocations import VirtualAllocation
    from heapdump.analyses.memory.gaps import Neighbours
    from heapdump.commands.common.gap_sentences import GapSentence
    from heapdump.snapshot import Snapshot

_MOST = 1000
"""Free runs and dividers that are examined with --all and for machines."""

_NO_MAP = "this dump has no complete memory map: free memory is not known"


def _neighbour(allocation: VirtualAllocation | None) -> str:
    """The neighbour of a free run; `-` at an end of the address space."""
    return "-" if allocation is None else allocation.words


RUNS: tuple[Column[Neighbours], ...] = (
    Column("Free run", lambda n: f"{n.span.start:#x}", "its first address on a 64 KiB boundary, as VirtualAlloc begins reservations", right=True),
    size_column("Size", lambda n: n.span.size, "bytes up to the next allocation"),
    Column("Before it", lambda n: _neighbour(n.before), "the allocation that ends before the run", flexible=16, wraps=True, rank=1),
    Column("After it", lambda n: _neighbour(n.after), "the allocation that begins behind the run", flexible=16, wraps=True),
)  # fmt: skip
HOLDERS: tuple[Column[UsageBytes], ...] = (
    Column("Usage", lambda s: s.name, "by modules, TEBs, PEBs, heap lists", style=lambda s: usage_style(s.name)),
    Column("Regions", lambda s: text.count(s.regions), "touching ranges with the same attributes", right=True),
    size_column("Address space", lambda s: s.bytes, "committed and reserved bytes"),
    size_column("Committed", lambda s: s.committed_bytes, "the committed part"),
    size_column("Only reserved", lambda s: s.reserved_bytes, "the part that is reserved and not committed"),
)  # fmt: skip


@option("--request", "request_size", metavar="SIZE", help="Does a reservation of this size fit, and if not, why?")
@dump_command("gaps")
def command(request: Request, request_size: str | None) -> int:
    """Out of address space: how fragmented, who is in the way.

    A free run counts from its first 64 kB boundary on, where VirtualAlloc can begin. Most useful for 32-bit processes that run out
    of memory while much of it is free.

    \b
    heapdump gaps crash.dmp
    heapdump gaps crash.dmp --request 200M
    heapdump gaps crash.dmp --image-path C:\\modules   for preferred bases
    """
    from heapdump.analyses.memory.address_space import AddressSpaceQuestion, examine

    request.refuse_sorting("gaps")
    size = text.parse_size(request_size) if request_size else None
    with request.open() as snapshot:
        wants_all = request.limit is None or request.format != "table"
        most = _MOST if request.limit is None or wants_all else request.limit
        namer = snapshot.namer(request.image_path, request.symbol_path)
        question = AddressSpaceQuestion(size, most, most, snapshot.stores(request.image_path))
        report = examine(snapshot.usage, namer, question)
        return request.emit(snapshot, _GapsPage(request, snapshot, report, wants_all).answer())


@dataclass(frozen=True)
class _GapsPage:
    """The report and how it is shown; None without a complete memory map."""

    request: Request
    snapshot: Snapshot
    report: AddressSpaceReport | None
    wants_all: bool

    def answer(self) -> Answer:
        """The answer of the command."""
        return Answer(
            "gaps",
            data=self._data,
            records=lambda: self._data()["runs"],
            page=self._page,
            gaps=(*self.snapshot.gaps, *heap_gaps(self.snapshot.heaps), *self._gaps()),
            nested={"before": ("address", "usage", "detail"), "after": ("address", "usage", "detail")},
        )

    def _gaps(self) -> Iterator[str]:
        """What the report lacks; what --limit leaves out is not missing."""
        from heapdump.commands.common.gap_words import TOO_MUCH

        report = self.report
        if report is None:
            yield _NO_MAP
            return
        if self.wants_all and report.free.runs > len(report.runs):
            yield f"only the largest {len(report.runs):,} of {report.free.runs:,} free runs are listed"
        if self.wants_all and report.has_more_dividers:
            yield (
                f"only the first {len(report.dividers):,} of what lies between free runs are examined: those that keep "
                "most free memory apart"
            )
        if report.has_unsearched:
            yield f"pointers to private memory between free runs were not searched for ({TOO_MUCH})"

    def _data(self) -> Record:
        from heapdump.commands.common.gap_records import report_record

        return report_record(self.report, [one.text for one in self._sentences()], self._divider)

    def _divider(self, explained: ExplainedDivider) -> Record:
        from heapdump.commands.common.gap_words import owner_words, reason_words, reasons_words

        divider = explained.divider
        return {
            "address": hex(divider.span.start),
            "bytes": divider.span.size,
            "owner": owner_words(explained),
            "gain_bytes": divider.gain_bytes,
            "joined_bytes": divider.joined.size,
            "reason": reasons_words(self.snapshot, explained),
            "members": [
                {
                    "address": hex(one.allocation.span.start),
                    "bytes": one.allocation.span.size,
                    "owner": one.allocation.words,
                    "kind": one.reason.value,
                    "reason": reason_words(self.snapshot, one),
                    "preferred_base": hex(one.image.preferred) if one.image and one.image.preferred else None,
                    "memory_imports": list(one.image.memory_imports) if one.image else [],
                    "referrers": [hex(address) for address in one.referrers],
                    "has_more_referrers": one.has_more_referrers,
                }
                for one in explained.occupants
            ],
        }

    def _sentences(self) -> list[GapSentence]:
        from heapdump.commands.common.gap_sentences import sentences

        return sentences(self.snapshot, self.report) if self.report else []

    def _header(self) -> list[tuple[str, str]]:
        process = self.snapshot.process
        name = (process.image or "unknown image").replace("/", "\\").rpartition("\\")[2]
        pid = "unknown" if process.pid is None else str(process.pid)
        return [(name, "bold"), (f"  pid {pid}  {process.arch}  {process.windows.name}", "")]

    def _page(self) -> Iterator[PageItem]:
        report, request = self.report, self.request
        yield Lines([self._header()])
        if report is None:
            yield Lines([[(_NO_MAP, "yellow")]])
            return
        yield Lines([_bullet(sentence) for sentence in self._sentences()])
        shown, _ = request.shown(report.runs)
        hidden = report.free.runs - len(shown)
        yield Table(RUNS, shown, hidden=hidden, empty="nothing is free")
        yield Lines([[(f"free runs: {_classes(report)}", "")]])
        dividers, _ = request.shown(report.dividers)
        if dividers:
            yield Table(_divider_columns(self.snapshot), dividers)
            if report.has_more_dividers:
                yield Lines([[(f"the {len(dividers):,} that keep most free memory apart; more with --limit N", "dim")]])
        yield Table(HOLDERS, report.usage)


def _divider_columns(snapshot: Snapshot) -> tuple[Column[ExplainedDivider], ...]:
    from heapdump.commands.common.gap_words import owner_words, reasons_words

    return (
        Column("In the way", lambda c: f"{c.divider.span.start:#x}", "first address of what lies between two free runs", right=True),
        size_column("Size", lambda c: c.divider.span.size, "bytes from the first to the last of them"),
        size_column("Gain", lambda c: c.divider.gain_bytes, "the joined free run without it, minus the larger of the two runs"),
        size_column("Joined", lambda c: c.divider.joined.size, "the free run that there would be without it", rank=2),
        Column("Owner", owner_words, "usage and detail, as in `regions`", flexible=16, wraps=True),
        Column("Why", lambda c: reasons_words(snapshot, c), "from headers of images, TEBs, heap lists and code", flexible=24, wraps=True),
    )  # fmt: skip


def _classes(report: AddressSpaceReport) -> str:
    """`5 of 1 MB and more, 2 of 16 MB and more …`."""
    from heapdump.analyses.memory.free_runs import SIZE_CLASSES

    counts = zip(report.free.counts, SIZE_CLASSES, strict=True)
    return ", ".join(f"{count:,} of {least >> 20} MB and more" for count, least in counts)


def _bullet(sentence: GapSentence) -> list[tuple[str, str]]:
    line = [(f"• {sentence.text}", "")]
    return [*line, (f" → heapdump {sentence.command}", "cyan")] if sentence.command else line
