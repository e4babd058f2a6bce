"""The text of a report of AddressSanitizer, taken apart: bug, address, access, memory, stacks, leaks.

The words are those of LLVM (asan_errors.cpp, asan_descriptions.cpp, lsan_common.cpp, sanitizer_symbolizer_report.cpp),
old spellings ("to the right of") too; MSVC's runtime prints the same. A part that is not there is None or empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import Literal

_HEX = r"0x[0-9a-f]+"
_I = re.IGNORECASE | re.MULTILINE
_HEAD = re.compile(r"ERROR: (?P<tool>Address|Leak)Sanitizer: (?P<words>[^\n]*)")
_SUMMARY = re.compile(r"^SUMMARY: (?:Address|Leak)Sanitizer: (?P<bug>[\w-]+)(?P<rest>[^\n]*)", re.MULTILINE)
_SENTENCES = (
    ("attempting double-free", "double-free"),
    ("attempting free on address which was not malloc", "bad-free"),
    ("attempting to call malloc_usable_size", "bad-malloc_usable_size"),
    ("attempting to call __sanitizer_get_allocated_size", "bad-__sanitizer_get_allocated_size"),
    ("bad parameters to __sanitizer_annotate", "bad-__sanitizer_annotate_contiguous_container"),
    ("requested allocation size", "allocation-size-too-big"),
    ("calloc parameters overflow", "calloc-overflow"),
    ("reallocarray parameters overflow", "reallocarray-overflow"),
    ("pvalloc parameters overflow", "pvalloc-overflow"),
    ("invalid allocation alignment", "invalid-allocation-alignment"),
    ("invalid alignment requested in aligned_alloc", "invalid-aligned-alloc-alignment"),
    ("invalid alignment requested in posix_memalign", "invalid-posix-memalign-alignment"),
    ("specified RSS limit exceeded", "rss-limit-exceeded"),
    ("allocator is out of memory", "out-of-memory"),
    ("detected memory leaks", "memory-leak"),
)
"""Words of the first line → the bug, where the line does not begin with its name."""

_NO_ADDRESS = ("allocation-size-too-big", "out-of-memory")
"""Bugs whose hexadecimal numbers are sizes."""

_ADDRESS = re.compile(rf"(?:\bon (?:unknown )?(?:address )?|-ed: |owned: |ranges \[|^\S+: )({_HEX})", re.IGNORECASE)
_ACCESS = re.compile(rf"^(READ|WRITE|ACCESS) of size (\d+) at ({_HEX}) thread (\S+)", _I)
_SIGNAL = re.compile(r"caused by a (READ|WRITE) memory access", re.IGNORECASE)
_THREAD = re.compile(r"\bthread (T\d+)|\b(T\d+)\)", re.IGNORECASE)
_LOCATED = re.compile(rf"^(?:Address )?{_HEX} is (?:located|a wild pointer)[^\n]*", _I)
_REGION = re.compile(rf"region \[({_HEX}),({_HEX})\)", re.IGNORECASE)
_GLOBAL = re.compile(
    rf"global variable '(?P<name>[^'\n]{{0,4096}})'[^\n]{{0,1024}}? \((?P<start>{_HEX})\) of size (?P<size>\d+)",
    re.IGNORECASE,
)
_VARIABLE = re.compile(
    r"^[ \t]{0,64}\[\d{1,20}, ?\d{1,20}\) '([^'\n]{0,4096})'[^\n]{0,4096}?<== ([^\n]*)", re.MULTILINE
)
_FRAME = re.compile(rf"^[ \t]+#\d+ ({_HEX})", _I)
_BLANK = re.compile(r"\n\r?\n")
_FREED = re.compile(r"^freed by thread (\S+)", re.MULTILINE)
_ALLOCATED = re.compile(r"^(?:previously )?allocated by thread (\S+)", re.MULTILINE)
_LEAK = re.compile(r"^(Direct|Indirect) leak of (\d+) byte\(s\) in (\d+) object\(s\)", re.MULTILINE)
_MOST_FRAMES = 256
_MOST_PARSED = 1 << 18
"""Characters of a report in which all but its leaks is looked for; one with all stacks of 256 frames has fewer."""


@dataclass(frozen=True, slots=True)
class AsanAccess:
    """The access that the runtime stopped: first address, bytes (None: not printed), thread as it names it (`T0`)."""

    kind: Literal["read", "write"]
    address: int
    bytes: int | None
    thread: str


@dataclass(frozen=True, slots=True)
class Leak:
    """Objects of one allocation stack that nobody held any more. `direct`: no other leaked object points to them."""

    direct: bool
    bytes: int
    objects: int
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AsanReport:
    """A report. `address`: where its text lies; `copies`: how often the process holds the same text.

    `bug`: AddressSanitizer's own word; `bad_address`: None where the report names none; `thread`: that it speaks of, ""
    not known. `region`: [start, end) of the block or global variable it speaks of; `located`: the sentence on it.
    `variable`: of a stack or global variable, "" for none. `frames`, `freed_by`, `allocated_by`: code addresses,
    innermost first; empty where not printed. `leaks`: of LeakSanitizer. `is_cut`: True where the text goes on
    behind what is read, or in memory that is not in the dump.
    """

    address: int
    copies: int
    text: str
    bug: str
    bad_address: int | None
    thread: str
    access: AsanAccess | None
    region: tuple[int, int] | None
    located: str
    variable: str
    frames: tuple[int, ...]
    freed_by: tuple[int, ...]
    allocated_by: tuple[int, ...]
    leaks: tuple[Leak, ...] = ()
    is_cut: bool = False


def parse_report(address: int, text: str) -> AsanReport | None:
    """The parts of a report's text; None where it does not begin like one."""
    with_leaks, text = text, text[:_MOST_PARSED]
    head = _HEAD.search(text)
    if head is None or not head["words"].strip():
        return None
    bug = _bug(head["words"], text)
    if not bug:
        return None
    region, variable = _region(text)
    located = _LOCATED.search(text, head.end())
    bad, access = _address(head["words"], bug), _access(text)
    thread = _THREAD.search(head["words"])
    named = access.thread if access is not None else next(filter(None, thread.groups()), "") if thread else ""
    return AsanReport(
        address=address, copies=1, text=with_leaks, bug=bug, bad_address=access.address if access is not None else bad,
        thread=named, access=access or _signal(text, bad, named), region=region,
        located="" if located is None else located[0].strip(), variable=variable, frames=_main_frames(text, head.end()),
        freed_by=_frames_behind(text, _FREED), allocated_by=_frames_behind(text, _ALLOCATED),
        leaks=_leaks(with_leaks) if head["tool"] == "Leak" else (),
    )  # fmt: skip


def _bug(words: str, text: str) -> str:
    """The name of the bug: as the first line says it in a sentence, as the summary has it, or the first word."""
    for sentence, bug in _SENTENCES:
        if sentence in words:
            return bug
    first = re.match(r"[\w-]+", words)
    summary = _SUMMARY.search(text)
    if first is not None and (summary is None or summary["bug"] == first[0] or "-" in first[0]):
        return first[0]
    return summary["bug"] if summary is not None else first[0] if first is not None else ""


def _address(words: str, bug: str) -> int | None:
    found = None if bug in _NO_ADDRESS else _ADDRESS.search(words)
    return int(found[1], 16) if found is not None else None


def _access(text: str) -> AsanAccess | None:
    found = _ACCESS.search(text)
    if found is None:
        return None
    kind: Literal["read", "write"] = "write" if found[1].upper() == "WRITE" else "read"
    return AsanAccess(kind, int(found[3], 16), int(found[2]), found[4])


def _signal(text: str, address: int | None, thread: str) -> AsanAccess | None:
    """The access of a signal or exception, whose size is not printed."""
    found = _SIGNAL.search(text) if address is not None else None
    if found is None or address is None:
        return None
    return AsanAccess("write" if found[1].upper() == "WRITE" else "read", address, None, thread)


def _region(text: str) -> tuple[tuple[int, int] | None, str]:
    """([start, end) of the memory that the report is about, the name of the variable)."""
    found = _REGION.search(text)
    if found is not None:
        return (int(found[1], 16), int(found[2], 16)), ""
    variable = _GLOBAL.search(text)
    if variable is not None:
        start = int(variable["start"], 16)
        return (start, start + int(variable["size"])), variable["name"]
    on_stack = _VARIABLE.search(text)
    return None, on_stack[1] if on_stack is not None else ""


def _main_frames(text: str, start: int) -> tuple[int, ...]:
    """The stack of the bug: behind the first lines, before the memory and the other stacks."""
    ends = (found.start() for one in (_LOCATED, _FREED, _ALLOCATED) if (found := one.search(text, start)) is not None)
    return _frames(text[: min(ends, default=len(text))], start)


def _frames_behind(text: str, title: re.Pattern[str]) -> tuple[int, ...]:
    found = title.search(text)
    return () if found is None else _frames(text, found.end())


def _frames(text: str, start: int, end: int | None = None) -> tuple[int, ...]:
    """The addresses of the first stack behind `start` and before `end`: its lines follow each other."""
    end = len(text) if end is None else end
    first = _FRAME.search(text, start, end)
    if first is None:
        return ()
    blank = _BLANK.search(text, first.start(), end)
    stack = _FRAME.finditer(text, first.start(), blank.start() if blank is not None else end)
    return tuple(int(found[1], 16) for found in islice(stack, _MOST_FRAMES))


def _leaks(text: str) -> tuple[Leak, ...]:
    found = list(_LEAK.finditer(text))
    if not found:
        return ()
    ends = [one.start() for one in found[1:]] + [len(text)]
    return tuple(
        Leak(one[1] == "Direct", int(one[2]), int(one[3]), _frames(text, one.end(), end))
        for one, end in zip(found, ends, strict=True)
    )
