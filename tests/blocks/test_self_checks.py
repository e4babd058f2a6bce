"""Self-checks: which differences between a counter of Windows and the walk count."""

from __future__ import annotations

import pytest

from heapdump.blocks.walk import Check, CheckKind


@pytest.mark.parametrize("kind", CheckKind)
def test_a_counter_below_the_walk_never_holds(kind):
    assert not Check(kind, 5, 7).holds
    assert Check(kind, 7, 7).holds
    assert Check(kind, None, 7).holds


@pytest.mark.parametrize("kind", CheckKind)
def test_the_bytes_of_large_blocks_alone_may_be_counted_too_high(kind):
    """ntdll does not take back the bytes by which HeapReAlloc shrinks a large block."""
    check = Check(kind, 9, 7)
    assert check.holds is (kind is CheckKind.LARGE_BYTES)
    assert check.agreement == (1.0 if check.holds else 7 / 9)
