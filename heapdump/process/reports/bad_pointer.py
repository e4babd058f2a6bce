"""Pointers that lead nowhere, read: null with an offset, text, a fill pattern, an address that no processor accepts."""

from __future__ import annotations

from heapdump.wording import preview

_NULL_BYTES = 0x10000
"""Windows maps nothing below: an address there is a null pointer and an offset."""

_FILLS = {
    "feeefeee": "the heap's fill of freed memory", "cdcdcdcd": "the debug CRT's fill of new memory",
    "dddddddd": "the debug CRT's fill of freed memory", "f0f0f0f0": "page heap's fill of freed memory",
    "abababab": "the heap's fill behind a block", "baadf00d": "the heap's fill of new memory",
    "fdfdfdfd": "the debug CRT's guard", "cccccccc": "the compiler's fill of locals",
    "c0c0c0c0": "page heap's fill of new memory", "e0e0e0e0": "page heap's fill of new memory",
    "bebebebe": "AddressSanitizer's fill of new memory",
}  # fmt: skip
"""Eight hex digits → the code that fills memory with them (semantics.md §2.3, §2.4)."""

_FREED = ("feeefeee", "dddddddd", "f0f0f0f0")
_NEAR_FILL = 0x1000
"""An offset that a member access adds to a fill pattern, at most."""

_USER_TOP, _KERNEL_BOTTOM = 1 << 47, (1 << 64) - (1 << 47)


def pointer_words(value: int, pointer_bytes: int) -> str:
    """The likeliest meaning of a bad pointer; "" where it looks like an address.

    `value`: the pointer, or what a member access made of it.
    """
    if value < _NULL_BYTES:
        return "null" if value == 0 else f"null + {value:#x}, a member of a null pointer"
    fill = _fill(value, pointer_bytes)
    if fill:
        offset = value - int(fill * (pointer_bytes // 4), 16)
        return f"{fill}{f' + {offset:#x}' if offset else ''}: {_FILLS[fill]}"
    text = value.to_bytes(pointer_bytes, "little").rstrip(b"\0")
    if len(text) >= 4 and all(0x20 <= byte < 0x7F for byte in text):
        return f"looks like text: {preview(text)!r}"
    if pointer_bytes == 8 and len(text) >= 6 and not any(text[1::2]) and all(0x20 <= byte < 0x7F for byte in text[::2]):
        return f"looks like UTF-16 text: {preview(text[::2])!r}"
    if pointer_bytes == 8 and _USER_TOP <= value < _KERNEL_BOTTOM:
        return "non-canonical: no address that the processor accepts"
    return ""


def is_freed_fill(value: int, pointer_bytes: int) -> bool:
    """True for a pointer out of memory that was freed and filled, with a small offset."""
    return _fill(value, pointer_bytes) in _FREED


def _fill(value: int, pointer_bytes: int) -> str:
    """The fill pattern that a pointer is made of, "" for none."""
    for fill in _FILLS:
        base = int(fill * (pointer_bytes // 4), 16)
        if base <= value < base + _NEAR_FILL:
            return fill
    return ""
