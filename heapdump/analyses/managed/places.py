"""What lies at an address, as the runtimes of the process see it: a method, a stub, an object, or nothing of theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from heapdump.memory.space import AddressSpace
from heapdump.runtimes.runtime import CodePlace, ManagedObject, ObjectHeap, Runtime
from heapdump.wording import plural

_MOST_REFERRERS = 20


@dataclass(frozen=True, slots=True)
class ManagedPlace:
    """An address with the code or the object that holds it.

    Attributes:
        address: the address.
        code: method or stub that holds it; None for none.
        found: object that holds it; None for none.
        text: contents of the object where it is a string; None for others.
        field: field of the object that the address points into; None where it is not known.
    """

    address: int
    code: CodePlace | None
    found: ManagedObject | None
    text: str | None = None
    field: str | None = None

    @property
    def offset(self) -> int | None:
        """Bytes from the start of the method's code or of the object; None without both."""
        start = self.code.start if self.code else self.found.address if self.found else None
        return None if start is None else self.address - start


@dataclass(frozen=True, slots=True)
class Referrer:
    """A word of the managed heap that points to an object.

    Attributes:
        at: address of the word.
        source: object that the word lies in; None where it is not known.
        field: field of that object; None where it is not known.
    """

    at: int
    source: ManagedObject | None
    field: str | None


@dataclass(frozen=True, slots=True)
class ManagedReferrers:
    """The words that point to an object.

    Attributes:
        words: the first ones; within a heap by address.
        gaps: sentences on further ones, and on memory that the dump lacks.
        notes: sentences on pointers of a form that is not searched.
    """

    words: tuple[Referrer, ...]
    gaps: tuple[str, ...]
    notes: tuple[str, ...]


def managed_place(runtimes: Sequence[Runtime], address: int) -> ManagedPlace:
    """The method, stub or object at an address; of an object its segment is walked."""
    code = next((place for runtime in runtimes if (place := runtime.code_at(address)) is not None), None)
    if code is not None:
        return ManagedPlace(address, code, None)
    for heap in heaps(runtimes):
        found = heap.object_at(address)
        if found is not None:
            field = heap.field_at(found, address) if address != found.address else None
            return ManagedPlace(address, None, found, heap.text_of(found), field)
    return ManagedPlace(address, None, None)


def heaps(runtimes: Sequence[Runtime]) -> Iterator[ObjectHeap]:
    """The managed heaps of all runtimes."""
    return (runtime.heap for runtime in runtimes if runtime.heap is not None)


def referrers(space: AddressSpace, runtimes: Sequence[Runtime], address: int) -> ManagedReferrers:
    """The first 20 words of managed heaps that hold an address, and what was not searched. Reads the whole heaps."""
    found = ((heap, at) for heap in heaps(runtimes) for at in heap.pointers_to(address))
    out = []
    for heap, at in islice(found, _MOST_REFERRERS):
        source = heap.object_at(at)
        out.append(Referrer(at, source, heap.field_at(source, at) if source is not None else None))
    gaps = list(_missing(space, runtimes))
    if next(found, None) is not None:
        gaps.append(f"only the first {_MOST_REFERRERS} words that point to the object are listed")
    narrow = any(heap.has_narrow_pointers for heap in heaps(runtimes))
    notes = ("objects may point to each other by 32 bits (compressed oops), which are not searched",) if narrow else ()
    return ManagedReferrers(tuple(out), tuple(gaps), notes)


def _missing(space: AddressSpace, runtimes: Sequence[Runtime]) -> Iterator[str]:
    """Sentences on the parts of managed heaps that the dump lacks."""
    for heap in heaps(runtimes):
        edges = np.array([(span.start, span.end) for span in heap.spans()], np.uint64).reshape(-1, 2)
        present = int(space.mapped.bytes_present(edges[:, 0], edges[:, 1]).sum())
        missing = int((edges[:, 1] - edges[:, 0]).sum()) - present
        if missing:
            yield f"{plural(missing, 'byte')} of the managed heap are not in the dump: pointers there are not seen"
