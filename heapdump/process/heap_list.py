"""The handles of a view's heaps: the array that the PEB names, and the linked list of Windows 11 24H2.

Folklore: from 26100 on the PEB's array holds the default heap alone. The other heaps are on a linked list of nodes
{LIST_ENTRY, handle}. Its head lies in ntdll's data, its first node is the default heap's (every recorded process of
26100.4061; heap-structures.md §1.1). The head is found without symbols: it is the only place in ntdll that points to a
node whose back link points to this place and whose handle is the default heap's.
"""

from __future__ import annotations

from collections.abc import Sequence

from heapdump.memory import limits
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span
from heapdump.wording import plural

_FIRST_BUILD_WITH_LIST = 26100
_LAST_BUILD_WITHOUT_LIST = 22000
"""No recording is of a build between the two: there the list is searched for, and may be missing."""

_MAX_CANDIDATES = 65_536
"""Words of ntdll that are tried as the head; a real ntdll has some dozens that point near the default heap."""


def heap_list(
    space: AddressSpace, peb_fields: dict[str, int], ntdlls: Sequence[Span], build: int, gaps: list[str]
) -> tuple[tuple[int, ...], bool]:
    """(handles, each once, in the order of the lists; True where the lists were read to their end).

    `gaps` gets a line for each list that ends early.
    """
    if "ProcessHeaps" not in peb_fields:  # the last of its members in the PEB
        return _default_heap(peb_fields), False
    handles, complete = _peb_array(space, peb_fields, gaps)
    default = peb_fields.get("ProcessHeap", 0)
    may_have_list = default and build > _LAST_BUILD_WITHOUT_LIST
    linked, is_closed = _linked_list(space, default, ntdlls, gaps) if may_have_list else (None, True)
    if linked is None and build >= _FIRST_BUILD_WITH_LIST and ntdlls:
        gaps.append(
            "this Windows keeps its heaps on a list in ntdll's data, which was not found in the dump: "
            "heaps other than the process heap may be missing"
        )
        complete = False
    # Wine: NumberOfHeaps is 0 and only the default heap is named
    complete = complete and is_closed and bool(handles)
    return tuple(dict.fromkeys((*handles, *(linked or ()), *_default_heap(peb_fields)))), complete


def _default_heap(peb_fields: dict[str, int]) -> tuple[int, ...]:
    return (peb_fields["ProcessHeap"],) if peb_fields.get("ProcessHeap") else ()


def _peb_array(space: AddressSpace, peb_fields: dict[str, int], gaps: list[str]) -> tuple[list[int], bool]:
    total = peb_fields["NumberOfHeaps"]
    count = min(total, peb_fields["MaximumNumberOfHeaps"], limits.MAX_HEAPS)
    handles: list[int] = []
    if count < total:
        gaps.append(f"the PEB says {plural(total, 'heap')}, which its list cannot hold: the first {count:,} were read")
    for i in range(count):
        handle = space.try_pointer(peb_fields["ProcessHeaps"] + i * space.pointer_bytes)
        if handle is None:
            gaps.append(f"the PEB's list of {plural(count, 'heap')} ends at handle {i}: the rest is not in the dump")
            return handles, False
        if handle:
            handles.append(handle)
    return handles, count == total


def _linked_list(
    space: AddressSpace, default: int, ntdlls: Sequence[Span], gaps: list[str]
) -> tuple[list[int] | None, bool]:
    """(handles on the list of 24H2, None where ntdll's data has no head; True where the list closes)."""
    pointer = space.pointer_bytes
    near = Span(default, default + (1 << 32))  # the first node lies in the process heap's first segment
    for ntdll in ntdlls:
        for start, words in space.mapped.words(ntdll, space.pointer_bytes):
            for i in ((words >= near.start) & (words < near.end)).nonzero()[0][:_MAX_CANDIDATES].tolist():
                head, node = start + i * pointer, int(words[i])
                if space.try_pointer(node + pointer) == head and space.try_pointer(node + 2 * pointer) == default:
                    return _follow(space, head, node, gaps)
    return None, True


def _follow(space: AddressSpace, head: int, node: int, gaps: list[str]) -> tuple[list[int], bool]:
    pointer, previous = space.pointer_bytes, head
    handles: list[int] = []
    while node != head and len(handles) < limits.MAX_HEAPS:
        handle = space.try_pointer(node + 2 * pointer)
        if handle is None or space.try_pointer(node + pointer) != previous:
            gaps.append(f"the list of heaps in ntdll breaks at {node:#x} after {plural(len(handles), 'heap')}")
            return handles, False
        handles.append(handle)
        previous, node = node, space.try_pointer(node) or 0
    if node != head:
        gaps.append(f"the list of heaps in ntdll has more than {plural(len(handles), 'heap')}: the rest was not read")
    return handles, node == head
