"""The records of the recogniser: a piece that a pattern found, a row of the table, a named owner."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from heapdump.runtimes.owners.unknown import UnknownMemory
from heapdump.spans import Span
from heapdump.trust import Trust


class Strength(IntEnum):
    """What a pattern proves: HINT and FITS need the program beside them, PROOF names the owner by itself."""

    HINT = 0
    FITS = 1
    PROOF = 2


@dataclass(frozen=True, slots=True)
class FoundOwner:
    """Memory in which a pattern was found.

    Attributes:
        span: the memory.
        words: the pattern, for a person.
        strength: what the pattern proves.
    """

    span: Span
    words: str
    strength: Strength


@dataclass(frozen=True, slots=True)
class Program:
    """The marks of a program; one of them is enough.

    Attributes:
        modules: names of modules in lower case, with `*`.
        exports: names of exports, with `*`.
        texts: bytes that a module contains, at most 64 long.
    """

    modules: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    texts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """An owner of memory that can be named.

    Attributes:
        name: of the owner, as printed.
        program: the program that must be there; None for a pattern that needs none.
        pattern: gives the memory that looks like the owner's.
        source: recording or description in which the pattern was seen.
    """

    name: str
    program: Program | None
    pattern: Callable[[UnknownMemory], Iterable[FoundOwner]]
    source: str


@dataclass(frozen=True, slots=True)
class NamedOwner:
    """Memory with the name of its owner.

    Attributes:
        span: the memory.
        name: of the owner.
        evidence: the program and the pattern, in words.
        trust: DERIVED where no other program has such contents or reservations; GUESS where others may have them.
    """

    span: Span
    name: str
    evidence: str
    trust: Trust
