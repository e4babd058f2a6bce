"""The address space in sentences: is it used up or broken up, by whom, and what helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from heapdump.analyses.compare.identity import image_name
from heapdump.commands.common.gap_words import owner_words, reasons_words
from heapdump.render import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.memory.address_space import AddressSpaceReport, ExplainedDivider
    from heapdump.snapshot import Snapshot

_GRAVE = 8
"""A divider, or memory that is only reserved, is mentioned from this part of the address space on."""

_SCARCE = 20
_MOST_DIVIDERS = 3


class GapSentence(NamedTuple):
    """A statement, and the command that shows more; "" for a statement without one."""

    text: str
    command: str = ""


def sentences(snapshot: Snapshot, report: AddressSpaceReport) -> list[GapSentence]:
    """The statements, the most important first."""
    return [
        *_request(report),
        *_commit(snapshot, report),
        *_free(report),
        *_dividers(snapshot, report),
        *_aware(snapshot, report),
        *_reserved(snapshot, report),
    ]


def _request(report: AddressSpaceReport) -> Iterator[GapSentence]:
    request, free = report.request, report.free
    if request is None:
        return
    size = text.short_size(request.bytes)
    if request.fitting:
        runs = text.plural(request.fitting, "free run")
        yield GapSentence(f"a request of {size} fits in {runs}: the address space is not what refuses it")
        return
    largest = f"the largest free run has {text.short_size(free.largest_bytes)}"
    if free.free_bytes >= request.bytes:
        yield GapSentence(
            f"a request of {size} does not fit: {largest}, although {text.short_size(free.free_bytes)} are free: the "
            "address space is broken up"
        )
    else:
        yield GapSentence(f"a request of {size} does not fit: {largest}: the address space is used up")


def _commit(snapshot: Snapshot, report: AddressSpaceReport) -> Iterator[GapSentence]:
    """What is left of the system's commit limit: for a request, and where it is less than a twentieth."""
    system = snapshot.process.system_memory
    if system is None or system.committed is None or not system.commit_limit:
        return
    left = max(0, system.commit_limit - system.committed)
    words = f"{text.short_size(left)} of {text.short_size(system.commit_limit)} of the system's commit limit are left"
    if report.request is not None:
        refused = left < report.request.bytes
        yield GapSentence(
            f"{words}: {'committing the request would be refused' if refused else 'commit is not the limit'}"
        )
    elif left < system.commit_limit // _SCARCE:
        yield GapSentence(f"{words}: commit is scarce in the whole system")


def _free(report: AddressSpaceReport) -> Iterator[GapSentence]:
    free, limit = report.free, report.limit
    if free.largest is None:
        yield GapSentence("nothing is free")
        return
    of = f" of the {text.short_size(limit.end)} of address space" if limit.end else ""
    apart = f"; {free.fragmentation:.0%} lies outside of it" if free.fragmentation else ""
    yield GapSentence(
        f"{text.short_size(free.free_bytes)}{of} is free, in {text.plural(free.runs, 'run')}; the largest has "
        f"{text.short_size(free.largest_bytes)}, at {free.largest.start:#x}{apart}"
    )


def _dividers(snapshot: Snapshot, report: AddressSpaceReport) -> Iterator[GapSentence]:
    """What keeps an eighth of the address space apart; where a request does not fit, what would make it fit."""
    least = (report.limit.end or 1 << 47) // _GRAVE
    if report.request is not None and not report.request.fitting:
        for one in report.request.dividers:
            yield _divider(snapshot, one, "it would fit")
        if report.request.dividers or not report.free.free_bytes:
            return
    for one in report.dividers[:_MOST_DIVIDERS]:
        if one.divider.apart_bytes >= least:
            yield _divider(snapshot, one, "the free run would be")


def _divider(snapshot: Snapshot, explained: ExplainedDivider, what: str) -> GapSentence:
    divider = explained.divider
    joined = text.short_size(divider.joined.size)
    would = f"without it, {what}{f' {joined}' if what.endswith('be') else f': the free run would be {joined}'}"
    reasons = reasons_words(snapshot, explained)
    return GapSentence(
        f"{owner_words(explained)} at {divider.span.start:#x} ({text.short_size(divider.span.size)}) keeps "
        f"{text.short_size(divider.apart_bytes)} of free memory apart; {would}. {reasons[0].upper()}{reasons[1:]}",
        f'regions "{snapshot.dump.path}" --at {divider.span.start:#x}'
        if " " in str(snapshot.dump.path)
        else f"regions {snapshot.dump.path} --at {divider.span.start:#x}",
    )


def _aware(snapshot: Snapshot, report: AddressSpaceReport) -> Iterator[GapSentence]:
    limit = report.limit
    if not limit.gain_bytes:
        return
    name = image_name(snapshot.process) or "the program"
    gain = text.short_size(limit.gain_bytes)
    if limit.is_large_address_aware is None:
        yield GapSentence(f"whether {name} is large address aware is not in the dump; if not, that is worth {gain}")
    else:
        yield GapSentence(
            f"{name} is not large address aware: linked with /LARGEADDRESSAWARE (editbin sets it too) it has {gain} "
            "more on 64-bit Windows"
        )


def _reserved(snapshot: Snapshot, report: AddressSpaceReport) -> Iterator[GapSentence]:
    """Usages that reserve much address space and do not commit it."""
    if not report.limit.is_32bit or not report.limit.end:
        return
    for share in report.usage:
        if share.reserved_bytes >= report.limit.end // _GRAVE:
            threads = f" of {text.plural(len(snapshot.process.threads), 'thread')}" if "Stack" in share.name else ""
            yield GapSentence(
                f"{share.name}{threads} reserves {text.short_size(share.reserved_bytes)} that it does not commit"
            )
