"""The thread list and the exception stream."""

from __future__ import annotations

import struct

import pytest

from heapdump.dump.open import open_minidump
from tests.builders import BuiltDump, DumpBuilder


def stream_offset(built: BuiltDump, number: int) -> int:
    return struct.unpack_from("<I", built.data, 32 + 12 * built.truth.streams.index(number) + 8)[0]


def test_a_thread_comes_out_as_it_was_written(write_dump):
    builder = DumpBuilder().memory(0x8000, bytes(0x1000))
    builder.thread(77, 0x7FF12000, stack=(0x8400, 0xC00), ip=0x1234, sp=0x8400)
    with open_minidump(write_dump(builder.build())) as dump:
        (thread,) = dump.threads
        assert (thread.id, thread.teb, thread.suspend_count) == (77, 0x7FF12000, 0)
        assert (thread.stack.start, thread.stack.end) == (0x8400, 0x9000)
        assert len(thread.context) == 0x4D0
        assert struct.unpack_from("<Q", thread.context, 0xF8) == (0x1234,)


def test_of_two_threads_with_one_id_the_first_counts(write_dump):
    builder = DumpBuilder().thread(4, 0x1000, ip=1).thread(8, 0x2000).thread(4, 0x3000, ip=2)
    with open_minidump(write_dump(builder.build())) as dump:
        assert [(t.id, t.teb) for t in dump.threads] == [(4, 0x1000), (8, 0x2000)]
        assert dump.thread_notes == ["1 thread entry of the thread list with the id of an earlier one left out"]


def test_threads_with_ids_of_their_own_are_no_note(write_dump):
    with open_minidump(write_dump(DumpBuilder().thread(4, 0x1000).thread(8, 0x2000).build())) as dump:
        assert len(dump.threads) == 2
        assert dump.thread_notes == []


def test_a_context_behind_the_end_of_the_file_is_cut(write_dump):
    built = DumpBuilder().thread(4, 0x1000).thread(8, 0x2000).build()
    at = stream_offset(built, 3) + 4
    data = bytearray(built.data)
    struct.pack_into("<II", data, at + 40, 0x4D0, 0xFFFFFF00)
    struct.pack_into("<II", data, at + 48 + 40, 0x4D0, len(data) - 10)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert [len(t.context) for t in dump.threads] == [0, 10]


def test_a_stack_past_the_top_of_the_address_space_is_cut(write_dump):
    top = 1 << 64
    builder = DumpBuilder().thread(4, 0x1000, stack=(top - 0x1000, 0x8000))
    with open_minidump(write_dump(builder.build())) as dump:
        stack = dump.threads[0].stack
        assert stack.start == top - 0x1000
        assert top - 1 <= stack.end <= top


@pytest.mark.parametrize("count", [2, 0x7FFFFFFF])
def test_a_thread_count_above_what_the_stream_holds_is_cut_with_a_note(write_dump, count):
    built = DumpBuilder().thread(4, 0x1000).build()
    data = bytearray(built.data)
    struct.pack_into("<I", data, stream_offset(built, 3), count)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert [t.id for t in dump.threads] == [4]
        assert f"the thread list says {count:,} entries, its stream holds 1: the rest is missing" in dump.thread_notes


@pytest.mark.parametrize("parameters", [(), (1, 0x10), tuple(range(15))])
def test_an_exception_has_the_parameters_its_record_counts(write_dump, parameters):
    builder = DumpBuilder().exception(9, 0xC0000005, 0x7FF612345678, parameters, flags=1)
    with open_minidump(write_dump(builder.build())) as dump:
        record = dump.exception
        assert record is not None
        assert (record.thread_id, record.code, record.flags) == (9, 0xC0000005, 1)
        assert (record.address, record.parameters) == (0x7FF612345678, parameters)
        assert struct.unpack_from("<Q", record.context, 0xF8) == (0x7FF612345678,)


@pytest.mark.parametrize("count", [16, 1000, 0xFFFFFFFF])
def test_a_parameter_count_above_fifteen_gives_fifteen(write_dump, count):
    built = DumpBuilder().exception(9, 1, 2, range(15)).build()
    data = bytearray(built.data)
    struct.pack_into("<I", data, stream_offset(built, 6) + 32, count)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert dump.exception is not None
        assert dump.exception.parameters == tuple(range(15))


def test_an_exception_stream_that_is_too_short_is_no_exception(write_dump):
    with open_minidump(write_dump(DumpBuilder().stream(6, bytes(167)).build())) as dump:
        assert dump.exception is None
    with open_minidump(write_dump(DumpBuilder().build())) as dump:
        assert dump.exception is None
