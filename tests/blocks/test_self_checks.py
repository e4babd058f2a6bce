"""Self-checks: which differences between a counter of Windows and the walk count."""

from __future__ import annotations

import pytest

from heapdump.blocks.walk import Check, CheckKind


@pytest.mark.parametrize("kind", CheckKind)
def test_a_counter_below_the_walk_never_holds(kind):
    assert not Check(kind, 5, 7).holds
    assert Check(kind, 7, 7).holds
    assert Check(kind, None, 7).holds


@pytest.mark.parametrize("may_exceed", [False, True])
def test_a_counter_above_the_walk_holds_where_windows_does_not_lower_it(may_exceed):
    """ntdll does not take back the bytes by which HeapReAlloc shrinks a large block of an NT heap."""
    check = Check(CheckKind.LARGE_BYTES, 9, 7, may_exceed)
    assert check.holds is may_exceed
    assert check.agreement == (1.0 if may_exceed else 7 / 9)
    assert not Check(CheckKind.LARGE_BYTES, 5, 7, may_exceed).holds
