"""The texts of an image's version resource: company, product, description.

Resource directories: {…, named entries u16 at 12, numbered u16 at 14}, entries {name or id u32, offset u32}; the high
bit of the offset means another directory; a leaf is {RVA, size}. VS_VERSIONINFO: {length u16, value length u16, type
u16, key UTF-16, padding to 4, value, padding, children} (winver.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

ReadRva = Callable[[int, int], bytes | None]
_VERSION, _DIRECTORY = 16, 1 << 31
_MOST_ENTRIES, _MOST_BYTES, _DEEPEST, _MOST_TEXTS = 4096, 1 << 16, 4, 64


def read_versions(read: ReadRva, resources: int) -> dict[str, str]:
    """Name → text of the first version resource, `CompanyName` → `Microsoft`; empty where it is not there.

    `resources`: RVA of the resource directory, 0 for none. Only the first language is read.
    """
    place = _find(read, resources) if resources else None
    if place is None or not 0 < place[1] <= _MOST_BYTES:
        return {}
    data = read(*place)
    out: dict[str, str] = {}
    for key, value in _texts(data or b"", 0):
        if key and value and len(out) < _MOST_TEXTS:
            out.setdefault(key, value)
    return out


def _find(read: ReadRva, root: int) -> tuple[int, int] | None:
    """(RVA, size) of the version resource: of its first name and its first language."""
    at, wanted = root, _VERSION
    for _ in range(_DEEPEST):
        offset = next((one for key, one in _entries(read, at) if wanted in (key, -1)), None)
        if offset is None:
            return None
        if not offset & _DIRECTORY:
            leaf = read(root + offset, 8)
            return (int.from_bytes(leaf[:4], "little"), int.from_bytes(leaf[4:], "little")) if leaf else None
        at, wanted = root + (offset & ~_DIRECTORY), -1
    return None


def _entries(read: ReadRva, at: int) -> Iterator[tuple[int, int]]:
    """(name or id, offset) of each entry of a directory."""
    head = read(at, 16)
    count = int.from_bytes(head[12:14], "little") + int.from_bytes(head[14:16], "little") if head else 0
    for i in range(min(count, _MOST_ENTRIES)):
        entry = read(at + 16 + 8 * i, 8)
        if entry is None:
            return
        yield int.from_bytes(entry[:4], "little"), int.from_bytes(entry[4:], "little")


def _texts(data: bytes, depth: int) -> Iterator[tuple[str, str]]:
    """(key, text) of every node that has a text."""
    at = 0
    while at + 6 <= len(data):
        length, value_length, is_text = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (0, 2, 4))
        if length < 6:
            return
        node = data[at : at + length]
        key, behind = _text(node, 6)
        start = -(-behind // 4) * 4
        size = 2 * value_length if is_text == 1 else value_length
        if is_text == 1 and value_length:
            yield key, _text(node[: start + size], start)[0].strip()
        if depth < _DEEPEST:
            children = -(-(start + size) // 4) * 4
            yield from _texts(node[children:], depth + 1)
        at += -(-length // 4) * 4


def _text(data: bytes, at: int) -> tuple[str, int]:
    """(zero-ended UTF-16 text, the offset behind it)."""
    end = at
    while end + 2 <= len(data) and data[end : end + 2] != b"\0\0":
        end += 2
    return data[at:end].decode("utf-16-le", "replace"), end + 2
