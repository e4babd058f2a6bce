"""The meaning of members in words: flags, signatures, sizes, threads, links of lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from heapdump.analyses.by_hand.pointees import Pointee
from heapdump.analyses.by_hand.struct_rows import StructRow
from heapdump.analyses.by_hand.texts import quoted
from heapdump.blocks.flags import flag_names
from heapdump.memory.space import AddressSpace
from heapdump.process.model import Process
from heapdump.process.types import TypeKind
from heapdump.wording import short_size

_SIGNATURES = {
    ("_HEAP", "Signature"): (0xEEFFEEFF,),
    ("_HEAP", "SegmentSignature"): (0xFFEEFFEE,),
    ("_HEAP_SEGMENT", "SegmentSignature"): (0xFFEEFFEE,),
    ("_HEAP_SEGMENT", "Signature"): (0xFFEEFFEE,),
    ("_SEGMENT_HEAP", "Signature"): (0xDDEEDDEE,),
    ("_HEAP_USERDATA_HEADER", "Signature"): (0xF0E0D0C0,),
    ("_DPH_HEAP_ROOT", "Signature"): (0xFFEEDDCC,),
    ("_DPH_BLOCK_INFORMATION", "StartStamp"): (0xABCDBBBB, 0xABCDAAAA, 0xABCDBBBA, 0xABCDAAA9),
    ("_DPH_BLOCK_INFORMATION", "EndStamp"): (0xDCBABBBB, 0xDCBAAAAA, 0xDCBABBBA, 0xDCBAAAA9),
}
"""Member → the values that it may have (heap-structures.md §2.1, §5, §6)."""

_STAMPS = ("busy, full page heap", "busy, light page heap", "freed, full page heap", "freed, light page heap")
_ENTRY_FLAGS = {
    0x01: "busy", 0x02: "extra", 0x04: "fill", 0x08: "internal", 0x10: "last", 0x20: "user1", 0x40: "user2",
    0x80: "user3",
}  # fmt: skip
_GLOBAL_FLAGS = {
    0x1: "soe", 0x2: "sls", 0x4: "dic", 0x10: "htc", 0x20: "hfc", 0x40: "hpc", 0x80: "hvc", 0x100: "vrf", 0x400: "ptg",
    0x800: "htg", 0x1000: "ust", 0x2000: "kst", 0x4000: "otl", 0x8000: "htd", 0x80000: "cse", 0x100000: "dps",
    0x200000: "dhc", 0x400000: "ece", 0x1000000: "cb", 0x2000000: "hpa",
}  # fmt: skip
"""Bits of NtGlobalFlag by the abbreviations of gflags."""

_UNUSED_CODES = {0: "", 1: "covers the header of a segment", 3: "the last entry of a committed run"}
"""UnusedBytes that are no number of bytes (heap-structures.md §2.3)."""

_IN_GRANULES = ("TotalFreeSize", "VirtualMemoryThreshold")
_FRONT_ENDS = {0: "no front end", 1: "lookaside lists", 2: "LFH"}
_LISTS = ("_LIST_ENTRY", "LIST_ENTRY")
_LINKS = ("Flink", "Blink")
_PAGE = 0x1000
_ENTRIES = ("_HEAP_ENTRY", "_HEAP_FREE_ENTRY")


@dataclass
class Meanings:
    """Gives the meanings of members in one process.

    `granule`: bytes of one unit of Size and PreviousSize of entries. `pointees`: names the thing at an address, None
    for none. `broken`: collects sentences on lists and signatures with wrong values.
    """

    process: Process
    space: AddressSpace
    granule: int
    pointees: Callable[[int], Pointee | None]
    broken: list[str] = field(default_factory=list)

    def of(self, row: StructRow, values: dict[str, int]) -> str:
        """The meaning of a row in a few words, "" where the value says it all. `values`: field → number of all rows."""
        if row.type.kind is TypeKind.STRUCT:
            return self._struct(row, values)
        if not isinstance(row.value, int):
            return ""
        if row.type.kind is TypeKind.ENUM:
            return next((name for value, name in row.type.names if value == row.value), "")
        special = self._by_name(row, row.value, values)
        if special is not None:
            return special
        if row.type.kind is TypeKind.POINTER:
            found = self.pointees(row.value)
            return found.text if found else ""
        return _number(row, row.value)

    def _by_name(self, row: StructRow, value: int, values: dict[str, int]) -> str | None:
        """The meaning of a member that its name tells; None for others."""
        owner, name = row.owner, row.member
        if (owner, name) in _SIGNATURES:
            return self._signature(row, value)
        if owner in _ENTRIES:
            return self._entry(row, value, values)
        if owner == "_HEAP" and name in _IN_GRANULES:
            return f"{value * self.granule:,} bytes"
        if owner == "_HEAP" and name in ("Flags", "ForceFlags"):
            return " ".join(flag_names(value))
        if name == "NtGlobalFlag":
            return " ".join(word for bit, word in _GLOBAL_FLAGS.items() if value & bit)
        if name == "FrontEndHeapType":
            return _FRONT_ENDS.get(value, "")
        if name in ("OwningThread", "UniqueThread"):
            return self._thread(value)
        if owner == "_RTL_CRITICAL_SECTION" and name == "LockCount":
            return self._lock(value)
        if owner in _LISTS and name in _LINKS:
            return self._link(row, value)
        return None

    def _signature(self, row: StructRow, value: int) -> str:
        allowed = _SIGNATURES[row.owner, row.member]
        if value not in allowed:
            self.broken.append(f"{row.field} is {value:#x}, not {allowed[0]:#x}")
            return f"must be {' or '.join(f'{one:#x}' for one in allowed)}"
        return _STAMPS[allowed.index(value)] if len(allowed) > 1 else "as it must be"

    def _entry(self, row: StructRow, value: int, values: dict[str, int]) -> str | None:
        prefix = row.field.removesuffix(row.member)
        if row.member in ("Size", "PreviousSize"):
            if row.member == "PreviousSize" and not value:
                return "the first entry of its run"
            return f"{value * self.granule:,} bytes" + (" before it" if row.member == "PreviousSize" else "")
        if row.member == "Flags":
            return " ".join(word for bit, word in _ENTRY_FLAGS.items() if value & bit) or "free"
        if row.member == "UnusedBytes":
            if value in _UNUSED_CODES:
                return _UNUSED_CODES[value]
            size, flags = values.get(f"{prefix}Size", 0) * self.granule, values.get(f"{prefix}Flags", 0)
            return f"{size - value:,} bytes were asked for" if flags & 1 and value < 0x3F and value <= size else ""
        return None

    def _thread(self, value: int) -> str:
        thread = next((one for one in self.process.threads if one.id == value), None)
        if thread is not None:
            return f"thread ~{thread.index}{f' {thread.name}' if thread.name else ''}"
        return "no thread" if not value else "a thread that is not in the dump"

    def _lock(self, value: int) -> str:
        """From Vista on bit 0 is 0 while a thread owns the lock, and bits 2-31 count the waiting ones downwards."""
        signed = value - (1 << 32) if value >= 1 << 31 else value
        if self.process.windows.build < 6000:
            return "free" if signed < 0 else f"owned, {signed} waiting"
        waiting = (-1 - signed) >> 2
        return "free" if signed & 1 and not waiting else f"{'free' if signed & 1 else 'owned'}, {waiting} waiting"

    def _link(self, row: StructRow, value: int) -> str:
        """A link of a list entry: whether the neighbour points back, and where it lies."""
        size, is_forward = self.space.pointer_bytes, row.member == "Flink"
        entry = row.address - (0 if is_forward else size)
        if value == entry:
            return "itself: an empty list"
        seen = self.space.try_pointer(value + (size if is_forward else 0))
        found = self.pointees(value)
        where = f"; {found.text}" if found else ""
        if seen is None:
            return "not linked" if not value else f"not in the dump{where}"
        if seen == entry:
            return f"points back{where}"
        if row.field == row.member:
            self.broken.append(f"{row.member}: {value:#x} does not point back: {seen:#x}")
        return f"does not point back: {seen:#x}{where}"

    def _struct(self, row: StructRow, values: dict[str, int]) -> str:
        """A list entry with its neighbours, a counted string, or nothing."""
        if row.type.target in _LISTS:
            return self._list_entry(row, values)
        if row.type.target == "_HEAP_ENTRY":
            return self._header(row, values)
        if row.type.target in ("_LARGE_INTEGER", "_ULARGE_INTEGER"):
            return f"{values.get(f'{row.field}.QuadPart', 0):#x}"
        if row.type.target in ("_UNICODE_STRING", "UNICODE_STRING", "_STRING"):
            length, buffer = values.get(f"{row.field}.Length"), values.get(f"{row.field}.Buffer")
            data = self.space.try_read(buffer, length) if buffer and length else None
            if data is not None:
                return quoted(data.decode("latin-1" if row.type.target == "_STRING" else "utf-16-le", "replace"), 200)
            return "" if length is None else "empty" if not length else "its text is not in the dump"
        return ""

    def _header(self, row: StructRow, values: dict[str, int]) -> str:
        """An entry header in one line."""
        size, flags = values.get(f"{row.field}.Size"), values.get(f"{row.field}.Flags")
        if size is None or flags is None or row.member == "Encoding":
            return ""
        words = " ".join(word for bit, word in _ENTRY_FLAGS.items() if flags & bit) or "free"
        return f"{size * self.granule:,} bytes, {words}"

    def _list_entry(self, row: StructRow, values: dict[str, int]) -> str:
        size, here = self.space.pointer_bytes, row.address
        forward, back = values.get(f"{row.field}.Flink"), values.get(f"{row.field}.Blink")
        if forward is None or back is None:
            return ""
        if forward == back == here:
            return "empty list"
        if not forward and not back:
            return "not linked"
        returned, followed = self.space.try_pointer(forward + size), self.space.try_pointer(back)
        wrong = [
            f"{neighbour:#x} does not point back: {seen:#x}"
            for neighbour, seen in ((forward, returned), (back, followed))
            if seen not in (None, here)
        ]
        if wrong:
            self.broken.append(f"{row.field}: {wrong[0]}")
            return "; ".join(wrong)
        unread = [f"{one:#x}" for one, seen in ((forward, returned), (back, followed)) if seen is None]
        if unread:
            return f"its neighbour {' and '.join(unread)} is not in the dump"
        return "both neighbours point back"


def _number(row: StructRow, value: int) -> str:
    """A large number of bytes or pages in units; a small one is decimal."""
    if row.type.kind in (TypeKind.CHAR, TypeKind.WCHAR):
        return repr(chr(value)) if 0x20 <= value < 0x7F else ""
    if row.member.endswith("Pages") and 0 < value < 1 << 40:
        return short_size(value * _PAGE)
    is_size = any(word in row.member for word in ("Size", "Reserve", "Commit", "Bytes", "Memory", "Threshold"))
    if is_size and 1024 <= value < 1 << 48:
        return short_size(value)
    is_count = 9 < value < 1 << 24 and not any(word in row.member for word in ("Mask", "Flags", "Bitmap", "Code"))
    return f"{value:,}" if is_count else ""


def numbers_of(rows: Iterable[StructRow]) -> dict[str, int]:
    """Field → value, of the rows that have a number."""
    return {row.field: row.value for row in rows if isinstance(row.value, int)}
