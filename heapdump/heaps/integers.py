"""Integers at the borders of arithmetic: addresses of user mode, and 64-bit words as the kernels take them."""

from __future__ import annotations

from heapdump.process.model import View


def signed64(word: int) -> int:
    """The 64-bit word, 0 ≤ word < 2**64, as the signed number with the same bits."""
    return word - (1 << 64) if word & 1 << 63 else word


def address_limit(view: View) -> int:
    """First address above user mode: 2**32 (x86) or 2**63 (x64), below which signed 64-bit sums do not overflow."""
    return 1 << min(8 * view.pointer_bytes, 63)
