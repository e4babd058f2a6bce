"""Stop codes of Application Verifier in words, reworded after Microsoft's list (heap-structures.md §7.2)."""

from __future__ import annotations

HEAP_STOPS = range(0x1, 0x15)
"""The stops of the heap layer."""

ACCESS_STOPS = (0x2, 0x13, 0x650)
"""Stops whose parameters are those of an access violation: address, code, exception record, context record."""

LEAK_STOPS = range(0x900, 0x906)
"""The stops at the unload of a DLL: resource, stack, DLL name, DLL base."""

LEAKED_BLOCK = 0x900
"""The leak stop whose resource is a heap block."""

STOP_WORDS = {
    0x1: "unclassified",
    0x2: "access violation near a heap block",
    0x3: "two threads inside a heap without a lock",
    0x4: "absurd request size",
    0x5: "heap handle without a valid signature",
    0x6: "block belongs to another heap",
    0x7: "block already freed",
    0x8: "corrupted heap block",
    0x9: "the process heap was destroyed",
    0xA: "exception inside heap code",
    0xB: "exception while reading a block header",
    0xC: "exception while probing a block",
    0xD: "block header changed after free",
    0xE: "freed block changed",
    0xF: "bytes behind the block changed",
    0x10: "start stamp changed",
    0x11: "end stamp changed",
    0x12: "bytes before the block changed",
    0x13: "first-chance access violation",
    0x14: "heap list is inconsistent",
    0x200: "a thread ended while it owned a critical section",
    0x201: "memory with an active critical section was freed",
    0x202: "critical section initialized twice",
    0x203: "memory of a critical section was freed before its deletion",
    0x204: "critical section is corrupted",
    0x205: "critical section has no valid owner",
    0x206: "critical section recursion count is wrong",
    0x207: "critical section deleted while it is owned",
    0x208: "critical section released more often than acquired",
    0x209: "critical section lock count is wrong",
    0x210: "critical section used without initialization",
    0x211: "critical section initialized again",
    0x212: "a virtual block with an active critical section was freed",
    0x213: "an image with an active critical section was unloaded",
    0x214: "critical section is owned by another thread",
    0x215: "private critical section used outside of its DLL",
    0x250: "slim lock not initialized",
    0x251: "slim lock initialized twice",
    0x252: "slim lock released by a thread that does not own it",
    0x253: "slim lock acquired twice by one thread",
    0x254: "a thread ended while it owned a slim lock",
    0x255: "memory with an active slim lock was freed",
    0x256: "an image with an active slim lock was unloaded",
    0x300: "invalid handle",
    0x301: "invalid TLS index",
    0x302: "null handle array",
    0x303: "wait for threads inside DllMain",
    0x304: "null handle",
    0x305: "handle of another object type",
    0x400: "COM error",
    0x404: "COM call without initialization",
    0x500: "RPC error",
    0x600: "memory freed twice",
    0x601: "memory of a DLL freed while it is loaded",
    0x602: "memory of a thread stack freed",
    0x603: "wrong free type",
    0x604: "free of memory that is free",
    0x605: "free with a size that is not zero",
    0x606: "unexpected exception in a DLL entry point",
    0x607: "unexpected exception in a thread function",
    0x608: "exception while memory was probed",
    0x609: "null address probed",
    0x60A: "free of heap memory by VirtualFree",
    0x60B: "unmap of the wrong mapping",
    0x60C: "unexpected free of a stack",
    0x612: "invalid free of memory",
    0x650: "execution of memory that is not executable",
    0x700: "exception in a thread pool callback",
    0x900: "heap block leaked by a DLL that was unloaded",
    0x901: "handle leaked by a DLL that was unloaded",
    0x902: "registry key leaked by a DLL that was unloaded",
    0x903: "virtual reservation leaked by a DLL that was unloaded",
    0x904: "BSTR leaked by a DLL that was unloaded",
    0x905: "power notification leaked by a DLL that was unloaded",
}

STOP_TITLES = {
    0x6: "Corrupted heap pointer or using wrong heap",
    0x7: "Heap block already freed",
    0x8: "Corrupted heap block",
    0xE: "Corrupted infix pattern for freed heap block",
    0xF: "Corrupted suffix pattern for heap block",
    0x10: "Corrupted start stamp for heap block",
    0x11: "Corrupted end stamp for heap block",
    0x12: "Corrupted prefix pattern for heap block",
    0x13: "First chance access violation for current stack trace",
}
"""Microsoft's own text of the stops that people search for."""

_STANDARD = ("heap", "block", "block size", "")
_LEAK = ("resource", "stack", "DLL name", "DLL base")
_ACCESS = ("address", "code address", "exception record", "context record")
_PARAMETERS = {
    0x2: _ACCESS, 0x3: ("heap", "owner thread", "current thread", ""), 0x4: ("heap", "requested size", "", ""),
    0x5: ("heap", "", "", ""), 0x6: ("heap", "block", "block size", "heap of the block"), 0x9: ("heap", "", "", ""),
    0xA: ("heap", "exception record", "context record", "exception code"),
    0xF: ("heap", "block", "block size", "first changed byte"), 0x10: ("heap", "block", "block size", "stamp found"),
    0x11: ("heap", "block", "block size", "stamp found"), 0x13: _ACCESS,
    0x14: ("heaps in the list", "page heaps", "", ""), 0x650: _ACCESS,
    0x200: ("thread", "critical section", "debug information", "initialization stack"),
    0x201: ("critical section", "debug information", "initialization stack", "memory"),
    0x300: ("exception code", "exception record", "context record", "handle"),
    0x305: ("handle", "object type", "wanted type", ""),
}  # fmt: skip


def parameter_names(code: int) -> tuple[str, ...]:
    """The meaning of the four parameters of a stop, "" for one without."""
    if code in LEAK_STOPS:
        return _LEAK
    return _PARAMETERS.get(code, _STANDARD if code in HEAP_STOPS and code != 1 else ("", "", "", ""))


def stop_words(code: int) -> str:
    """The meaning of the code; the layer for one that is not in Microsoft's list."""
    if code in STOP_WORDS:
        return STOP_WORDS[code]
    layers = {0x2: "locks", 0x3: "handles", 0x4: "COM", 0x5: "RPC", 0x6: "memory", 0x7: "thread pools", 0x9: "leaks"}
    return f"a stop of {layers[code >> 8]}" if code >> 8 in layers else "stop of another layer"
