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
    """Memory in which a pattern was found. `words`: the pattern for a person."""

    span: Span
    words: str
    strength: Strength


@dataclass(frozen=True, slots=True)
class Program:
    """A program, by any of: names of modules, names of exports (both with `*`), texts in modules."""

    modules: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    texts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """A row of the table. `program`: None for a pattern that stands alone; `source`: where the pattern was seen."""

    name: str
    program: Program | None
    pattern: Callable[[UnknownMemory], Iterable[FoundOwner]]
    source: str


@dataclass(frozen=True, slots=True)
class NamedOwner:
    """Memory with the name of its owner. `evidence`: the program and the pattern, in words.

    `trust`: derived where contents or reservations are the owner's only; guess where they only fit.
    """

    span: Span
    name: str
    evidence: str
    trust: Trust
