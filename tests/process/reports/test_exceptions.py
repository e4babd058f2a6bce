"""Exception codes in words."""

from __future__ import annotations

import pytest

from heapdump.dump.streams import ExceptionRecord
from heapdump.process.reports.exceptions import exception_words


@pytest.mark.parametrize(
    ("code", "parameters", "words"),
    [
        (0xC0000005, (0, 0x10), "access violation reading 0x10"),
        (0xC0000005, (1, 0xDEADBEEF), "access violation writing 0xdeadbeef"),
        (0xC0000005, (8, 0x0), "access violation executing 0x0"),
        (0xC0000005, (7, 0x20), "access violation using 0x20"),
        (0xC0000005, (1,), "access violation"),
        (0xC0000006, (0, 0x30, 0xC000026E), "in-page error reading 0x30"),
        (0xC0000374, (0x7FFE,), "heap corruption"),
        (0x80000003, (), "breakpoint"),
        (0xE06D7363, (1, 2, 3, 4), "C++ exception"),
        (0xC0000409, (), "stack buffer overrun or fast fail"),
        (0xC0000409, (2,), "fast fail 2 (STACK_COOKIE_CHECK_FAILURE): a stack buffer was overrun (/GS cookie)"),
        (0xC0000409, (7,), "fast fail 7 (FATAL_APP_EXIT): abort() or std::terminate()"),
        (0xC0000409, (8,), "fast fail 8 (RANGE_CHECK_FAILURE): array bounds exceeded"),
        (0xC0000409, (50,), "fast fail 50 (HEAP_METADATA_CORRUPTION): heap metadata is corrupted"),
        (0xC0000409, (71,), "fast fail 71 (ASAN_ERROR): AddressSanitizer found an error"),
        (0xC0000409, (0x1234,), "fast fail 4660"),
        (0x12345678, (1, 2), "exception"),
    ],
)
def test_an_exception_is_named_with_what_it_touched(code, parameters, words):
    assert exception_words(ExceptionRecord(4, code, 0, 0x1000, parameters, b"")) == words
