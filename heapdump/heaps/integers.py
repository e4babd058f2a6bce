"""Signed 64-bit words, as kernels take them, and the limit of addresses that fit into them."""

from __future__ import annotations

from heapdump.process.model import View


def signed64(word: int) -> int:
    """The 64-bit word, 0 ≤ word < 2**64, as the signed number with the same bits."""
    return word - (1 << 64) if word & 1 << 63 else word


def address_limit(view: View) -> int:
    """Addresses of the view lie below this: 2**32 (x86), 2**63 (x64). Sums of them do not overflow signed 64 bits."""
    return 1 << min(8 * view.pointer_bytes, 63)
