"""Damaged bytes of one structure or fill."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.findings import FindingKind


@dataclass(frozen=True, slots=True)
class ByteDamage:
    """The damaged bytes [address, address + len(found)).

    Attributes:
        kind: kind of the finding that reports them.
        what: name of the damaged member or fill, for a person: `StartStamp`, `suffix`.
        address: of the first damaged byte.
        expected: bytes that should be there; as many as `found`.
        found: bytes that are there.
        is_cut: True where more bytes behind them are damaged.
    """

    kind: FindingKind
    what: str
    address: int
    expected: bytes
    found: bytes
    is_cut: bool = False

    @property
    def at_least(self) -> str:
        """The word before the number of damaged bytes; "" where it is all of them."""
        return "at least " if self.is_cut else ""
