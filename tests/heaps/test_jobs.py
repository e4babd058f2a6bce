"""The log of a walk: what it keeps is bounded, however many steps the walk has."""

from __future__ import annotations

import pytest

from heapdump.blocks.findings import Finding
from heapdump.heaps.jobs import WalkLog
from heapdump.memory import limits


def step(first: int, count: int) -> WalkLog:
    """The log of a step that met `count` damaged headers."""
    log = WalkLog()
    for number in range(first, first + count):
        log.add_damage(Finding("entry_header", "error", 0x1000, number, 8, str(number), "", ""), f"gap {number}")
    return log


def test_steps_keep_together_what_one_step_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FINDINGS", 5)
    monkeypatch.setattr(limits, "MAX_GAPS", 3)
    one, several, merged = step(0, 12), WalkLog(), WalkLog()
    for first in range(0, 12, 4):
        several.merge(step(first, 4))
    merged.merge(one)
    assert several == merged == one
    assert [finding.address for finding in several.findings] == [0, 1, 2, 3, 4]
    assert list(several.all_gaps(0x1000)) == [
        "gap 0", "gap 1", "gap 2", "heap 0x1000: only the first 3 lines about its damaged places are kept",
        "heap 0x1000: only its first 5 findings are kept",
    ]  # fmt: skip


def test_damage_hides_no_sentence_about_missing_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_GAPS", 2)
    log = step(0, 9)
    for number in range(2):
        later = step(9, 9)
        later.add_gap(f"missing {number}")
        log.merge(later)
    assert [line for line in log.all_gaps(0) if "missing" in line] == ["missing 0", "missing 1"]
    log.add_gap("missing 2")
    assert list(log.all_gaps(0))[-1] == "heap 0x0: only the first 2 lines about missing memory are kept"


def test_nothing_is_said_to_be_left_out_at_the_limit_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FINDINGS", 4)
    monkeypatch.setattr(limits, "MAX_GAPS", 4)
    log = WalkLog()
    log.merge(step(0, 2))
    log.merge(step(2, 2))
    assert (len(log.findings), len(list(log.all_gaps(0)))) == (4, 4)
