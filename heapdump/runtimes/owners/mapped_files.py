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
    """A test that is True for bytes with one of these magic numbers at offset `at`."""
    return lambda first: any(first[at : at + len(magic)] == magic for magic in magics)


def is_wal_index(first: bytes) -> bool:
    """True for the index of a write-ahead log: version 3007000, and a copy of the 48-byte header (SQLite: wal.c)."""
    return first[:4] == (3007000).to_bytes(4, "little") and first[:16] == first[48:64]


def is_image(first: bytes) -> bool:
    """True for a DOS header whose offset of the PE header is possible."""
    return first[:2] == b"MZ" and 0x40 <= int.from_bytes(first[0x3C:0x40], "little") < 0x1000


def is_truetype(first: bytes) -> bool:
    """True for a font: version 1.0, a number of tables, and the search range that follows from it (TrueType)."""
    tables, search = int.from_bytes(first[4:6], "big"), int.from_bytes(first[6:8], "big")
    return first[:4] == b"\0\1\0\0" and 4 <= tables <= 64 and search == 16 << (tables.bit_length() - 1)


def file_of(test: Test) -> Pattern:
    """A pattern: mapped memory whose first 64 bytes in the dump pass a test."""

    def find(memory: UnknownMemory) -> Iterator[FoundOwner]:
        """The mappings that pass, of the first ones."""
        for one in islice(memory.mapped, _MOST_MAPPINGS):
            first = memory.space.try_read(one.span.start, _HEAD)
            if first is not None and test(first):
                yield FoundOwner(one.span, f"it begins with {first[:_SHOWN].hex(' ')}", Strength.PROOF)

    return find
