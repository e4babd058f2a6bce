"""The kinds of content that the first bytes of a block can have."""

from __future__ import annotations

from enum import StrEnum

from heapdump.trust import Trust


class ContentKind(StrEnum):
    """A kind; its value is the word of tables and of the JSON.

    BSTR, STRING, WSTRING and VECTOR are types of Windows and of the C++ library (`containers.py`).
    """

    ABSENT = "not in the dump"
    EMPTY = "no bytes"
    ZEROS = "zeros"
    FILL = "one repeated byte"
    BSTR = "counted string (BSTR)"
    STRING = "std::string-like"
    WSTRING = "std::wstring-like"
    VECTOR = "std::vector-like"
    ASCII = "text (ASCII)"
    UTF16 = "text (UTF-16)"
    MODULE_POINTER = "pointer into a module"
    BLOCK_POINTERS = "pointers to heap blocks"
    BLOCK_POINTER = "pointer to a heap block"
    SMALL_NUMBER = "small number"
    OTHER = "other data"

    @property
    def number(self) -> int:
        """Its place in the order of this class, which stands for it in arrays."""
        return _NUMBERS[self]

    @property
    def trust(self) -> Trust:
        """`exact` where no byte is read, `guess` for what bytes look like."""
        return Trust.EXACT if self in (ContentKind.ABSENT, ContentKind.EMPTY) else Trust.GUESS


_NUMBERS = {kind: number for number, kind in enumerate(ContentKind)}
VAGUE_KINDS = (
    ContentKind.ABSENT, ContentKind.EMPTY, ContentKind.MODULE_POINTER, ContentKind.BLOCK_POINTERS,
    ContentKind.BLOCK_POINTER, ContentKind.SMALL_NUMBER, ContentKind.OTHER,
)  # fmt: skip
"""Kinds that tell no type: what the first word looks like, or nothing at all."""

LIBRARY_KINDS = (ContentKind.BSTR, ContentKind.STRING, ContentKind.WSTRING, ContentKind.VECTOR)
"""Types of Windows and of the C++ library."""
