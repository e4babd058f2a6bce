"""The estimate that decides whether compiled loops pay."""

from __future__ import annotations

from heapdump.heaps.workload import Workload


def test_nothing_is_estimated_before_a_sixteenth_is_walked():
    workload = Workload(1600)
    workload.add(3, 99)
    assert (workload.expected(), workload.expected(7)) == (0, 7)
    workload.add(1, 1)
    assert (workload.expected(), workload.expected(7), workload.expected(100)) == (64, 64, 100)


def test_a_mebibyte_is_enough_of_a_large_heap():
    workload = Workload(1 << 40)
    workload.add(1 << 9, 1 << 20)
    assert workload.expected() == 1 << 29


def test_heaps_without_memory_have_no_blocks():
    assert Workload(0).expected() == 0
    empty = Workload(0)
    empty.add(5, 80)
    assert empty.expected() == 0
