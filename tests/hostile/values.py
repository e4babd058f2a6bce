"""Numbers that break arithmetic: ends of ranges, signs, sizes and addresses that cannot be."""

from __future__ import annotations

WORDS = (
    0, 1, 7, 8, 0x7F, 0xFF, 0x1000, 0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFFFFF, 1 << 40, 1 << 63, (1 << 64) - 0x1000,
    (1 << 64) - 1,
)  # fmt: skip
