"""Mapped files by the magic numbers that they begin with. Minidumps do not name the file of a mapping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from heapdump.runtimes.owners.owner import FoundOwner, Strength
from heapdump.runtimes.owners.reservations import Pattern
from heapdump.runtimes.owners.unknown import UnknownMemory

_MOST_MAPPINGS = 4096
_HEAD, _SHOWN = 64, 8
Test = Callable[[bytes], bool]


def begins(*magics: bytes, at: int = 0) -> Test:
    """True for bytes with one of these magic numbers."""
    return lambda head: any(head[at : at + len(magic)] == magic for magic in magics)


def is_wal_index(head: bytes) -> bool:
    """The index of a write-ahead log (SQLite: wal.c): version 3007000, and behind the header of 48 bytes its copy."""
    return head[:4] == (3007000).to_bytes(4, "little") and head[:16] == head[48:64]


def is_image(head: bytes) -> bool:
    """A DOS header whose offset of the PE header makes sense."""
    return head[:2] == b"MZ" and 0x40 <= int.from_bytes(head[0x3C:0x40], "little") < 0x1000


def is_truetype(head: bytes) -> bool:
    """A font: version 1.0, a number of tables, and the search range that follows from it."""
    tables, search = int.from_bytes(head[4:6], "big"), int.from_bytes(head[6:8], "big")
    return head[:4] == b"\0\1\0\0" and 4 <= tables <= 64 and search == 16 << (tables.bit_length() - 1)


def file_of(test: Test) -> Pattern:
    """Mapped memory whose first bytes in the dump pass a test."""

    def find(memory: UnknownMemory) -> Iterator[FoundOwner]:
        """The mappings that pass, of the first ones."""
        for one in islice(memory.mapped, _MOST_MAPPINGS):
            head = memory.space.try_read(one.span.start, _HEAD)
            if head is not None and test(head):
                yield FoundOwner(one.span, f"it begins with {head[:_SHOWN].hex(' ')}", Strength.PROOF)

    return find
