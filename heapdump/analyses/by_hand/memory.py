"""Memory at an address in several forms, as db, dw, dd, dq, dps, da, du and dl show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from heapdump.analyses.by_hand.known_bytes import KnownBytes, read_known
from heapdump.analyses.by_hand.pointees import Pointee
from heapdump.errors import WrongUsage
from heapdump.memory.space import AddressSpace
from heapdump.wording import plural

LINE_BYTES = 16
MOST_ELEMENTS = 1 << 20


class Form(StrEnum):
    """The form in which memory is read. LINKS: a LIST_ENTRY whose list is followed."""

    BYTES = "bytes"
    WORDS = "words"
    DWORDS = "dwords"
    QWORDS = "qwords"
    POINTERS = "pointers"
    TEXT = "text"
    UTF16 = "utf16"
    LINKS = "links"

    def size(self, pointer_bytes: int) -> int:
        """Bytes of one element; of LINKS those of a LIST_ENTRY."""
        sizes = {Form.WORDS: 2, Form.DWORDS: 4, Form.QWORDS: 8, Form.UTF16: 2, Form.POINTERS: pointer_bytes}
        return 2 * pointer_bytes if self is Form.LINKS else sizes.get(self, 1)


DEFAULT_COUNTS = {
    Form.BYTES: 128, Form.WORDS: 64, Form.DWORDS: 32, Form.QWORDS: 16, Form.POINTERS: 16, Form.TEXT: 1024,
    Form.UTF16: 1024, Form.LINKS: 100,
}  # fmt: skip
"""Form → elements that are read where no count is given."""


@dataclass(frozen=True, slots=True)
class MemoryElement:
    """One element of memory; of `Form.BYTES` a line of 16 bytes.

    Attributes:
        address: of its first byte.
        bytes: its bytes; None for each that the dump does not hold.
        value: a number or a text; None where a byte is missing, and for a line of bytes.
        pointee: the thing that the value points to; None where it points to nothing.
    """

    address: int
    bytes: tuple[int | None, ...]
    value: int | str | None
    pointee: Pointee | None


@dataclass(frozen=True, slots=True)
class MemoryListing:
    """The elements of memory that were read.

    Attributes:
        rows: ascending, or in the order of a list.
        missing_bytes: bytes of the rows that the dump does not hold.
        end: sentence on the end of a text or a list; "" for other forms.
        is_sound: False for a list with a wrong link.
    """

    rows: tuple[MemoryElement, ...]
    missing_bytes: int
    end: str = ""
    is_sound: bool = True


def read_memory(
    space: AddressSpace, address: int, form: Form, count: int | None, pointees: Callable[[int], Pointee | None]
) -> MemoryListing:
    """`count` elements from an address on; None for the number that `DEFAULT_COUNTS` has.

    Raises:
        WrongUsage: more than `MOST_ELEMENTS` elements.
    """
    count = DEFAULT_COUNTS[form] if count is None else count
    if not 0 < count <= MOST_ELEMENTS:
        raise WrongUsage(f"--count {count} is not from 1 to {MOST_ELEMENTS:,}")
    if form is Form.LINKS:
        return _links(space, address, count, pointees)
    size = form.size(space.pointer_bytes)
    known = read_known(space, address, count * size)
    if form in (Form.TEXT, Form.UTF16):
        return _text(known, size)
    rows = tuple(_lines(known) if form is Form.BYTES else _numbers(known, size, form, pointees))
    return MemoryListing(rows, sum(gap.size for gap in known.missing))


def _lines(known: KnownBytes) -> Iterator[MemoryElement]:
    for at in range(known.span.start, known.span.end, LINE_BYTES):
        yield MemoryElement(at, tuple(known.each(at, LINE_BYTES)), None, None)


def _numbers(
    known: KnownBytes, size: int, form: Form, pointees: Callable[[int], Pointee | None]
) -> Iterator[MemoryElement]:
    for at in range(known.span.start, known.span.end - size + 1, size):
        value = known.integer(at, size)
        leads = pointees(value) if form is Form.POINTERS and value is not None else None
        yield MemoryElement(at, tuple(known.each(at, size)), value, leads)


def _text(known: KnownBytes, size: int) -> MemoryListing:
    """The text up to its zero, the first missing byte, or the end of what was read."""
    start, limit = known.span.start, known.missing[0].start if known.missing else known.span.end
    data = known.data[: (limit - start) // size * size]
    end = next((i for i in range(0, len(data), size) if not any(data[i : i + size])), None)
    raw = data if end is None else data[:end]
    text = raw.decode("utf-16-le" if size == 2 else "utf-8", "backslashreplace" if size == 1 else "replace")
    if end is not None:
        words = f"{plural(len(text), 'character')}, ended by a zero"
    elif known.missing:
        words = f"{plural(len(text), 'character')}; the dump does not hold what follows at {limit:#x}"
    else:
        words = f"{plural(len(text), 'character')}, and more follow: --count N reads N of them"
    missing = known.span.end - limit if end is None else 0
    return MemoryListing((MemoryElement(start, tuple(raw), text, None),), missing, words)


def _links(space: AddressSpace, head: int, count: int, pointees: Callable[[int], Pointee | None]) -> MemoryListing:
    """The entries of a list from one of them on; each entry's back link must lead to the entry before it."""
    size, rows, place = space.pointer_bytes, list[MemoryElement](), {}
    node, before, broken, end = head, None, "", ""
    while not end:
        known = read_known(space, node, 2 * size)
        forward, back = known.integer(node, size), known.integer(node + size, size)
        place[node] = len(rows)
        rows.append(MemoryElement(node, tuple(known.each(node, 2 * size)), forward, pointees(node)))
        if before is not None and back is not None and back != before:
            broken = broken or f"the back link of {node:#x} leads to {back:#x}, not to {before:#x}"
        if forward is None:
            return MemoryListing(
                tuple(rows), len(known.missing) * size, f"the dump does not hold the entry at {node:#x}"
            )
        end = _end_of_list(space, forward, head, len(rows), count)
        if not end and forward in place:
            broken = broken or f"{node:#x} leads back to entry {place[forward]}, {forward:#x}: a cycle"
            end = broken
        before, node = node, forward
    closing = space.try_pointer(head + size)
    if node == head and closing not in (before, None):
        broken = broken or f"the back link of {head:#x} leads to {closing:#x}, not to {before:#x}"
    return MemoryListing(tuple(rows), 0, broken or end, not broken)


def _end_of_list(space: AddressSpace, forward: int, head: int, read: int, count: int) -> str:
    """The reason why a list ends at this link; "" where it goes on."""
    if forward == head:
        return f"{plural(read, 'entry')}: the list leads back to {head:#x}, and every back link fits"
    if forward == 0:
        return f"{plural(read, 'entry')}: the list ends with a null link"
    if read >= count:
        return f"{plural(read, 'entry')}, and more follow: --count N reads N of them"
    return ""
