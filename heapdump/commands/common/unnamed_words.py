"""Memory that nothing names, described: its first words, and who refers to it; as lines and as a JSON record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.commands.common.pointees import pointee_record, pointees_of
from heapdump.render import text
from heapdump.render.view import Record, StyledLine

if TYPE_CHECKING:
    from heapdump.analyses.by_hand.pointees import Pointees
    from heapdump.analyses.memory.reconciliation import ItemBytes
    from heapdump.analyses.memory.referrers import ReferredMemory, ReferringPlace
    from heapdump.analyses.memory.unnamed import FirstWord
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot
    from heapdump.spans import Span

_MOST_BYTES = 4 << 30
"""Bytes of writable memory that are searched when one address is asked about."""

_CHEAP_BYTES = 1 << 30
"""Bytes that are searched without being asked to."""

_MOST_NAMES, _MOST_LARGEST, _BIG_SHARE, _BIG_BYTES = 3, 3, 0.25, 1 << 20


@dataclass(frozen=True)
class DescribedMemory:
    """One allocation that nothing names: `names` makes the text of a place."""

    words: tuple[FirstWord, ...]
    referred: ReferredMemory
    names: Pointees

    def record(self) -> Record:
        """`first_words`, `referenced_from`, and whether all writable memory was searched."""
        places = self.referred.places
        return {
            "first_words": [
                {"address": hex(one.address), "value": hex(one.value), "points_to": pointee_record(one.pointee)}
                for one in self.words
            ],
            "referenced_from": [
                {"kind": p.kind.value, "place": self._place(p), "address": hex(p.first), "words": p.words}
                for p in places
            ],
            "is_searched_whole": self.referred.is_whole,
        }

    def lines(self) -> Iterator[StyledLine]:
        """The first words, then the sentence on referrers."""
        if any(one.value for one in self.words):
            yield [("first words: ", "bold"), (", ".join(self._word(one) for one in self.words), "")]
        yield [(self.sentence, "")]

    def _word(self, one: FirstWord) -> str:
        """`0x7ff70000e100 (engine.dll!.data+0x100)`."""
        span = self.referred.span
        own = f"its own +{one.value - span.start:#x}" if one.value in span else ""
        what = own or (one.pointee.text if one.pointee else "")
        return f"{one.value:#x}{f' ({what})' if what else ''}"

    @property
    def sentence(self) -> str:
        """`referenced from engine.dll!.data+0x40, 3 threads and heap #0 (18 words, the first in …)`."""
        named = [*self._modules(), *self._threads(), *self._others()]
        if not named:
            where = "no word outside of it" if self.referred.is_whole else "no word that was searched outside of it"
            return f"{where} points into it"
        return f"referenced from {', '.join(named)}"

    def _of(self, kind: str) -> Sequence[ReferringPlace]:
        return [place for place in self.referred.places if place.kind == kind]

    def _modules(self) -> Iterator[str]:
        found = self._of("module")
        for place in found[:_MOST_NAMES]:
            more = f" and {text.plural(place.words - 1, 'more word')} there" if place.words > 1 else ""
            yield self._place(place) + more
        if len(found) > _MOST_NAMES:
            yield text.plural(len(found) - _MOST_NAMES, "more module")

    def _threads(self) -> Iterator[str]:
        found = self._of("thread")
        if found:
            yield f"{text.plural(len(found), 'thread')} ({self._place(found[0])})"

    def _others(self) -> Iterator[str]:
        heaps = self._of("heap")
        for place in heaps[:_MOST_NAMES]:
            words = text.plural(place.words, "word")
            yield f"heap #{place.number} ({words}, the first in {self._place(place)})"
        if len(heaps) > _MOST_NAMES:
            yield text.plural(len(heaps) - _MOST_NAMES, "more heap")
        found = self._of("memory")
        if found:
            words = text.plural(sum(place.words for place in found), "word")
            yield f"other memory ({words}, the first at {found[0].first:#x} in {self._place(found[0])})"

    def _place(self, place: ReferringPlace) -> str:
        """The name of the first word's place."""
        if place.kind == "memory" and not place.is_named:
            return f"the allocation {place.number:#x}"
        pointee = self.names.at(place.first)
        return pointee.text if pointee is not None else hex(place.first)


def described_memory(request: Request, snapshot: Snapshot, address: int) -> DescribedMemory | None:
    """The memory at an address; None where a structure of the process names it. Searches the writable memory."""
    from heapdump.analyses.memory.unnamed import unnamed_at

    found = unnamed_at(snapshot.usage, address)
    return next(iter(described(request, snapshot, [found.span], _MOST_BYTES)), None) if found else None


@dataclass(frozen=True)
class LargeMemory:
    """One of the largest allocations that nothing names."""

    address: int
    bytes: int
    committed_bytes: int
    about: DescribedMemory

    @property
    def sentence(self) -> str:
        """`0x23640000, 32.0 MB: referenced from …`."""
        return f"{self.address:#x}, {text.short_size(self.committed_bytes)}: {self.about.sentence}"

    def record(self) -> Record:
        """The JSON record."""
        return {
            "address": hex(self.address), "bytes": self.bytes, "committed_bytes": self.committed_bytes,
            **self.about.record(),
        }  # fmt: skip


def large_lines(found: Sequence[LargeMemory]) -> Iterator[StyledLine]:
    """A line for each that something refers to, else one for all."""
    held = [one for one in found if one.about.referred.places]
    yield from ([(f"unknown: {one.sentence}", "")] for one in held)
    if found and not held:
        yield [("unknown: no pointer to the largest allocations is in this dump", "")]


def largest_memory(request: Request, snapshot: Snapshot, items: Sequence[ItemBytes]) -> list[LargeMemory]:
    """The largest allocations of unknown memory, where it is the first item or a quarter of all; else none."""
    from heapdump.analyses.memory.unnamed import largest_unnamed

    unknown = [one for one in items if not one.item.is_known and one.share is not None and one.bytes >= _BIG_BYTES]
    if not any(one is items[0] or (one.share or 0) >= _BIG_SHARE for one in unknown):
        return []
    found = largest_unnamed(snapshot.usage, _MOST_LARGEST)
    about = described(request, snapshot, [one.span for one in found], _CHEAP_BYTES)
    pairs = zip(found, about, strict=True)
    return [LargeMemory(one.span.start, one.span.size, one.committed_bytes, words) for one, words in pairs]


def described(request: Request, snapshot: Snapshot, spans: Sequence[Span], most_bytes: int) -> list[DescribedMemory]:
    """These allocations, with one search of up to `most_bytes` of writable memory for all of them."""
    from heapdump.analyses.memory.referrers import ReferrerQuestion, referrers_of
    from heapdump.analyses.memory.unnamed import first_words

    if not spans:
        return []
    names = pointees_of(snapshot, snapshot.namer(request.image_path, request.symbol_path), quotes=False)
    question = ReferrerQuestion(spans, snapshot.heaps, snapshot.walk.table, most_bytes)
    found = referrers_of(snapshot.usage, question, snapshot.progress)
    return [DescribedMemory(first_words(snapshot.usage, one.span, names.at), one, names) for one in found]
