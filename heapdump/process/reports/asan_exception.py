"""The exception that MSVC's AddressSanitizer raises to hand its report over (ASAN_SAVE_DUMPS, debuggers).

    exception 0xe073616e, parameter 0 → u32 size of the structure · u32 kind 0xe073616f · four texts
    a text: u64 length · pointer
    in order: description (`heap-use-after-free`) · short message · the whole report · the program's own data

From public descriptions (semantics.md §2.10), not recorded. A pointer has 8 bytes, of a 32-bit process perhaps 4; texts
are UTF-16, or bytes: what reads as text decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.memory.space import AddressSpace
from heapdump.process.model import Process
from heapdump.process.reports.asan_text import AsanReport, parse_report

ASAN_EXCEPTION, _KIND = 0xE073616E, 0xE073616F
_SMALLEST, _LARGEST = 8 + 3 * 8, 0x400
_LONGEST = 1 << 22
_ROWS = ((16, 8, 8), (16, 8, 4), (12, 8, 4), (8, 4, 4))
"""(bytes of a row, bytes of the length, bytes of the pointer behind it)."""


@dataclass(frozen=True, slots=True)
class AsanException:
    """The texts of the exception; "" for one that is not in the dump. `address`: of the structure."""

    address: int
    description: str
    message: str
    text: str


def asan_exception(process: Process) -> AsanException | None:
    """The texts that the exception leads to; None for another exception, and where the structure is not in the dump."""
    raised = process.exception
    if raised is None or raised.code not in (ASAN_EXCEPTION, _KIND):
        return None
    return next((found for at in raised.parameters if (found := _read(process.views[-1].space, at))), None)


def exception_report(process: Process) -> AsanReport | None:
    """The report in the exception, taken apart; with the bug alone where the whole text is not in the dump."""
    found = asan_exception(process)
    if found is None:
        return None
    report = parse_report(found.address, found.text)
    if report is not None or not found.description:
        return report
    return AsanReport(
        address=found.address, copies=1, text=found.text or found.message, bug=found.description, bad_address=None,
        thread="", access=None, region=None, located="", variable="", frames=(), freed_by=(), allocated_by=(),
    )  # fmt: skip


def _read(space: AddressSpace, address: int) -> AsanException | None:
    size, kind = space.try_integer(address, 4), space.try_integer(address + 4, 4)
    if size is None or kind != _KIND or not _SMALLEST <= size <= _LARGEST:
        return None
    rows = (_texts(space, address + 8, *row) for row in _ROWS)
    best = max(rows, key=lambda texts: sum(map(bool, texts)))
    return AsanException(address, *best[:3])


def _texts(space: AddressSpace, start: int, step: int, length_bytes: int, pointer_bytes: int) -> list[str]:
    """The first three texts, "" for one that does not read as text."""
    out = []
    for at in range(start, start + 3 * step, step):
        length = space.try_integer(at, length_bytes)
        pointer = space.try_integer(at + length_bytes, pointer_bytes)
        out.append(_text(space, pointer, length) if pointer and length and length <= _LONGEST else "")
    return out


def _text(space: AddressSpace, address: int, length: int) -> str:
    """The text of so many characters, of two bytes or one."""
    wide = space.try_read(address, 2 * length)
    if wide is not None and wide[1:2] == b"\0":
        return _printable(wide.decode("utf-16-le", "replace"))
    narrow = space.try_read(address, length)
    return _printable(narrow.decode("utf-8", "replace")) if narrow is not None else ""


def _printable(text: str) -> str:
    text = text.partition("\0")[0]
    return text if text and all(one.isprintable() or one in "\r\n\t" for one in text) else ""
