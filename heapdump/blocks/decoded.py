"""The decoded bytes of an encoded structure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decoded:
    """An encoded structure after decoding.

    Attributes:
        data: the decoded bytes.
        words: how they were decoded, for a person: the key and where it comes from.
        holds: True when the checksum of the structure is right; None where the structure has no checksum.
    """

    data: bytes
    words: str
    holds: bool | None = None
