"""`_HEAP.Flags` in words: HEAP_* of ntrtl.h, high bits as read in ntdll (docs/reference/heap-structures.md §2.1)."""

from __future__ import annotations

_NAMES = {
    0x1: "NO_SERIALIZE",
    0x2: "GROWABLE",
    0x4: "GENERATE_EXCEPTIONS",
    0x8: "ZERO_MEMORY",
    0x10: "REALLOC_IN_PLACE_ONLY",
    0x20: "TAIL_CHECKING",
    0x40: "FREE_CHECKING",
    0x80: "DISABLE_COALESCE_ON_FREE",
    0x10000: "CREATE_ALIGN_16",
    0x20000: "CREATE_ENABLE_TRACING",
    0x40000: "CREATE_ENABLE_EXECUTE",
    0x01000000: "PAGE_ALLOCS",
    0x04000000: "NO_ENCODING",
    0x08000000: "CAPTURE_STACK_BACKTRACES",
    0x10000000: "SKIP_VALIDATION",
    0x20000000: "VALIDATE_ALL",
    0x40000000: "VALIDATE_PARAMETERS",
}
_CLASS_BITS = 0xF000
_CLASSES = ("PROCESS", "PRIVATE", "KERNEL", "GDI", "USER", "CONSOLE", "USER_DESKTOP", "CSR_SHARED", "CSR_PORT")


def flag_names(flags: int) -> list[str]:
    """The names of the set bits, lowest first, then the class of the heap (`CLASS_PRIVATE`); unknown bits as hex."""
    names = [name for bit, name in _NAMES.items() if flags & bit]
    unknown = flags & ~(sum(_NAMES) | _CLASS_BITS)
    heap_class = (flags & _CLASS_BITS) >> 12
    words = f"CLASS_{_CLASSES[heap_class]}" if heap_class < len(_CLASSES) else f"CLASS_{heap_class:#x}"
    return [*names, *([f"{unknown:#x}"] if unknown else []), *([words] if heap_class else [])]
