"""Exception codes in words (ntstatus.h, and the codes that runtimes raise)."""

from __future__ import annotations

from heapdump.dump.streams import ExceptionRecord
from heapdump.process.reports.fast_fail import FAST_FAIL, fast_fail_words

_WORDS = {
    0x80000001: "guard page hit",
    0x80000002: "misaligned data",
    0x80000003: "breakpoint",
    0x80000004: "single step",
    0xC0000005: "access violation",
    0xC0000006: "in-page error",
    0xC0000008: "invalid handle",
    0xC000000D: "invalid parameter",
    0xC0000017: "out of memory",
    0xC000001D: "illegal instruction",
    0xC0000025: "noncontinuable exception",
    0xC000008C: "array bounds exceeded",
    0xC000008E: "floating-point division by zero",
    0xC0000090: "invalid floating-point operation",
    0xC0000094: "integer division by zero",
    0xC0000095: "integer overflow",
    0xC0000096: "privileged instruction",
    0xC0000022: "access denied",
    0xC0000023: "buffer too small",
    0xC0000026: "invalid exception disposition",
    0xC000007B: "invalid image format",
    0xC000009A: "insufficient resources",
    0xC000012D: "commit limit reached",
    0xC0000138: "ordinal not found in a DLL",
    0xC0000139: "function not found in a DLL",
    0xC000013A: "Ctrl-C",
    0xC0000235: "close of a handle that is protected or not open",
    0xC0000417: "invalid parameter passed to a C runtime function",
    0xC06D007E: "delay-loaded DLL not found",
    0xC06D007F: "function not found in a delay-loaded DLL",
    0x80000007: "debugger wake",
    0x4001000A: "debug text (wide)",
    0x40010006: "debug text",
    0x8001010D: "COM call out of a synchronous input call",
    0xE0000001: "exception raised by the program",
    0xC00000FD: "stack overflow",
    0xC0000135: "DLL not found",
    0xC0000142: "DLL initialisation failed",
    0xC0000194: "possible deadlock",
    0xC0000374: "heap corruption",
    0xC0000409: "stack buffer overrun or fast fail",
    0xC000041D: "exception in a user callback",
    0xC0000420: "assertion failed",
    0xC0000421: "Application Verifier stop",
    0xC0000602: "fast fail",
    0xE06D7363: "C++ exception",
    0xE0434352: ".NET exception",
    0xE0434F4D: ".NET exception",
    0xE073616E: "AddressSanitizer report",
    0x40000015: "fatal application exit",
    0x4000001F: "WOW64 breakpoint",
    0x406D1388: "thread name set",
}
_ACCESS = {0: "reading", 1: "writing", 8: "executing"}


def exception_words(record: ExceptionRecord) -> str:
    """`access violation writing 0x10`; `exception` for a code without a name."""
    words = _WORDS.get(record.code, "exception")
    if record.code in (0xC0000005, 0xC0000006) and len(record.parameters) >= 2:
        return f"{words} {_ACCESS.get(record.parameters[0], 'using')} {record.parameters[1]:#x}"
    if record.code == FAST_FAIL and record.parameters:
        return fast_fail_words(record.parameters[0])
    return words
