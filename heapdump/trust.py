"""How a fact was obtained. Ground floor: every room may import it."""

from __future__ import annotations

from enum import StrEnum


class Trust(StrEnum):
    """How far a fact can be relied on.

    `exact`: read from the dump. `derived`: inferred, and confirmed by a second witness in the dump. `guess`: inferred
    only.
    """

    EXACT = "exact"
    DERIVED = "derived"
    GUESS = "guess"


SIZE_IS_A_GUESS = "its size is a guess"
"""Stands beside the size of a block whose trust is `GUESS`, in sentences and reports."""
