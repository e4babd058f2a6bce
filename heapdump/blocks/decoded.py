"""Bytes of an encoded structure as they read once decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decoded:
    """The decoded bytes, how they were decoded, and whether the structure's own check holds: None without a check."""

    data: bytes
    words: str
    holds: bool | None = None
