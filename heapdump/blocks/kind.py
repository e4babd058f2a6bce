"""Kinds of heaps and of blocks: their words in JSON, and the codes of the block table.

An allocator package defines its own kinds; the ones below belong to the allocators of Windows.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class HeapKind(str):
    """The JSON word of an allocator; UNKNOWN for an address on the heap list that no allocator claims."""

    __slots__ = ()
    NT: ClassVar[HeapKind]
    SEGMENT: ClassVar[HeapKind]
    PAGE: ClassVar[HeapKind]
    UNKNOWN: ClassVar[HeapKind]


HeapKind.NT, HeapKind.SEGMENT, HeapKind.PAGE = HeapKind("nt"), HeapKind("segment"), HeapKind("page")
HeapKind.UNKNOWN = HeapKind("unknown")


class Place(Enum):
    """Where blocks of a kind lie. It decides in which sum their bytes are counted."""

    SEGMENT = "an entry of a segment"
    NESTED = "inside a block that the allocator keeps for itself"
    HOSTED = "inside a block of another heap"
    OWN = "a reservation of its own"


class BlockKind(int):
    """The part of an allocator that owns a block. Its value, 0 to 15, is the code in bits 0-3 of a row's tags.

    Attributes:
        name: unique name.
        word: the word in JSON; several kinds may share one.
        place: where its blocks lie.
    """

    name: str
    word: str
    place: Place
    _known: ClassVar[dict[int, BlockKind]] = {}
    BACKEND: ClassVar[BlockKind]
    LFH: ClassVar[BlockKind]
    VIRTUAL: ClassVar[BlockKind]
    LOOKASIDE: ClassVar[BlockKind]
    VS: ClassVar[BlockKind]
    LARGE: ClassVar[BlockKind]
    PAGE: ClassVar[BlockKind]
    PAGES: ClassVar[BlockKind]
    LIGHT: ClassVar[BlockKind]

    @classmethod
    def define(cls, code: int, name: str, place: Place, word: str | None = None) -> BlockKind:
        """Defines a kind and gives it back; an equal second definition gives the same kind.

        Raises:
            ValueError: another kind has the code, or the code is not in 0..15.
        """
        known = cls._known.get(code)
        if not 0 <= code < 16 or (known is not None and known.name != name):
            raise ValueError(
                f"block kind {name}: code {code} is {'taken by ' + known.name if known else 'not in 0..15'}"
            )
        if known is None:
            known = cls._known[code] = cls(code)
            known.name, known.word, known.place = name, word or name, place
        return known

    @classmethod
    def of(cls, code: int) -> BlockKind:
        """The kind of a code.

        Raises:
            KeyError: no kind has this code.
        """
        return cls._known[code]

    @classmethod
    def known(cls) -> tuple[BlockKind, ...]:
        """All kinds that were defined, ascending by code."""
        return tuple(cls._known[code] for code in sorted(cls._known))

    def __repr__(self) -> str:
        """The name."""
        return self.name


BlockKind.BACKEND = BlockKind.define(0, "backend", Place.SEGMENT)
BlockKind.LFH = BlockKind.define(1, "lfh", Place.NESTED)
BlockKind.VIRTUAL = BlockKind.define(2, "virtual", Place.OWN)
BlockKind.LOOKASIDE = BlockKind.define(3, "lookaside", Place.SEGMENT)
BlockKind.VS = BlockKind.define(4, "vs", Place.NESTED)
BlockKind.LARGE = BlockKind.define(5, "large", Place.OWN)
BlockKind.PAGE = BlockKind.define(6, "page", Place.OWN)
BlockKind.PAGES = BlockKind.define(7, "pages", Place.SEGMENT, word="backend")
BlockKind.LIGHT = BlockKind.define(8, "light", Place.HOSTED, word="page")
