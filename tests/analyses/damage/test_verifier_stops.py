"""Verifier stops whose parameters lead to a block in another way than by its address, and stops of other layers."""

from __future__ import annotations

import pytest

from heapdump.analyses.damage.incidents import Incident
from heapdump.process.reports.stop_codes import STOP_WORDS, parameter_names, stop_words
from heapdump.snapshot import Snapshot
from tests.builders import ProcessBuilder
from tests.builders.page_heap import PageHeapBuilder

PLACE, TID, MAGIC = 0x30000000, 99, 0x32725641


def stopped(page: PageHeapBuilder, code: int, *parameters: int) -> ProcessBuilder:
    process = ProcessBuilder(build=19041, nt_global_flag=0x02000000).heap(page.build()).thread(TID)
    process.dump.exception(TID, 0xC0000421, 0x7FFB0000, (MAGIC, code, *parameters))
    return process


def only(snapshot: Snapshot) -> Incident:
    (incident,) = snapshot.incidents
    assert incident.is_error
    return incident


@pytest.mark.parametrize("code", [0x2, 0x13])
def test_an_access_stop_at_a_guard_page_gives_the_block_before_it_and_the_distance(open_built, code):
    page = PageHeapBuilder(PLACE)
    block = page.block(121)
    guard = -(-(block + 121) // 0x1000) * 0x1000
    with open_built(stopped(page, code, guard, 0x401000, 0, 0).build()) as snapshot:
        incident = only(snapshot)
        past = guard - block - 121
        assert (incident.bug, incident.address) == ("heap-buffer-overflow", guard)
        assert incident.block is not None and incident.block.address == block
        assert f"access {past} byte" in incident.leading.finding.message


def test_a_changed_start_stamp_of_a_freed_block_is_no_underrun(open_built):
    page = PageHeapBuilder(PLACE)
    block = page.block(100, state="freed")
    with open_built(stopped(page, 0x10, PLACE + 0x1000, block, 100, 0xABCDBBBA).build()) as snapshot:
        incident = only(snapshot)
        assert (incident.bug, incident.address) == ("double-free", block)
        assert "the stamp 0xabcdbbba is that of a freed block" in incident.leading.finding.message


def test_a_leak_at_the_unload_of_a_dll_names_block_and_dll(open_built):
    page = PageHeapBuilder(PLACE)
    block = page.block(100)
    process = stopped(page, 0x900, block, 0x1000, 0x50000000, 0x67000000)
    process.region(0x50000000, 0x1000).memory(0x50000000, "plugin.dll\0".encode("utf-16-le").ljust(0x1000, b"\0"))
    with open_built(process.build()) as snapshot:
        incident = only(snapshot)
        assert (incident.bug, incident.block and incident.block.address) == ("memory-leak", block)
        assert "left behind by plugin.dll" in incident.leading.finding.message


def test_a_stop_of_the_lock_layer_is_a_misused_lock(open_built):
    with open_built(stopped(PageHeapBuilder(PLACE), 0x201, 1, 2, 3, 4).build()) as snapshot:
        assert only(snapshot).bug == "lock-misuse"


def test_every_stop_has_words_and_four_parameters():
    assert all(stop_words(code) and len(parameter_names(code)) == 4 for code in STOP_WORDS)
    assert stop_words(0x2FF) == "a stop of locks"
