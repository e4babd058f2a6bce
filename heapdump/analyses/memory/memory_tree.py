"""The memory of a process as a tree: class of VMMap → heap, module, thread, allocation → part. Every byte once.

In: the usage map and the heaps. Out: `MemoryNode`s, whose committed bytes add up to those of the memory map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from heapdump.analyses.memory.items import Item
from heapdump.analyses.memory.memory_classes import MemoryClass, classes_of, unusable_bytes
from heapdump.analyses.memory.usage import UsageMap
from heapdump.blocks.heap import ExtentKind, Heap
from heapdump.memory.regions import Kind, RegionClaim, State, protection_name
from heapdump.spans import Span
from heapdump.trust import Trust
from heapdump.wording import preview


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """A node of the tree.

    Attributes:
        name: class, heap, module, thread, allocation, or part of one of these.
        kind: class of the memory.
        bytes: committed and reserved bytes.
        committed_bytes: committed bytes.
        private_bytes: committed bytes of private memory.
        regions: number of regions of the memory map.
        largest_bytes: bytes of the largest region.
        address: of the memory; None for memory in several places.
        heap: index of the heap; None for other memory.
        key: name that is the same in another dump of the process.
        children: the parts, the largest first; () for a leaf.
    """

    name: str
    kind: MemoryClass
    bytes: int
    committed_bytes: int
    private_bytes: int
    regions: int
    largest_bytes: int
    address: int | None
    heap: int | None = None
    key: str = ""
    children: tuple[MemoryNode, ...] = ()


@dataclass(slots=True)
class _NodeSum:
    """The counts of one leaf while the map is read; members as in `MemoryNode`."""

    address: int
    bytes: int = 0
    committed_bytes: int = 0
    private_bytes: int = 0
    regions: int = 0
    largest_bytes: int = 0

    def add(self, address: int, size: int, *, committed: bool, private: bool) -> None:
        """Counts a region."""
        self.address = min(self.address, address)
        self.bytes += size
        self.committed_bytes += size if committed else 0
        self.private_bytes += size if committed and private else 0
        self.regions += 1
        self.largest_bytes = max(self.largest_bytes, size)


_Key = tuple[MemoryClass, str, str]
"""(class, heap or module or thread or allocation, part)."""


def memory_tree(usage: UsageMap, heaps: Sequence[Heap]) -> tuple[MemoryNode, ...]:
    """A node for each class that the process has, in VMMap's order. The cost grows with the number of regions."""
    sums, namer = _sums(usage, heaps)
    by_class: dict[MemoryClass, dict[str, dict[str, _NodeSum]]] = {}
    for (kind, group, part), found in sums.items():
        by_class.setdefault(kind, {}).setdefault(group, {})[part] = found
    return tuple(
        _node(kind.value, kind, list(_groups(kind, by_class[kind], namer))) for kind in MemoryClass if kind in by_class
    )


def _groups(kind: MemoryClass, groups: dict[str, dict[str, _NodeSum]], namer: _NodeNamer) -> Iterator[MemoryNode]:
    for group, sums in groups.items():
        leaves = [_leaf(name, kind, found) for name, found in sums.items()]
        lone = len(leaves) == 1
        node = replace(leaves[0], name=group) if lone else _node(group, kind, leaves)
        yield replace(node, heap=namer.owners.get(group), key=namer.keys.get(group, group))


def _leaf(name: str, kind: MemoryClass, found: _NodeSum) -> MemoryNode:
    return MemoryNode(
        name, kind, found.bytes, found.committed_bytes, found.private_bytes, found.regions, found.largest_bytes,
        found.address, key=name,
    )  # fmt: skip


def _node(name: str, kind: MemoryClass, children: list[MemoryNode]) -> MemoryNode:
    """The sum of the children, the largest first."""
    ordered = sorted(children, key=lambda child: (-child.committed_bytes, -child.bytes, child.name))
    return MemoryNode(
        name,
        kind,
        sum(part.bytes for part in ordered),
        sum(part.committed_bytes for part in ordered),
        sum(part.private_bytes for part in ordered),
        sum(part.regions for part in ordered),
        max((part.largest_bytes for part in ordered), default=0),
        min((part.address for part in ordered if part.address is not None), default=None),
        key=name,
        children=tuple(ordered),
    )


def _sums(usage: UsageMap, heaps: Sequence[Heap]) -> tuple[dict[_Key, _NodeSum], _NodeNamer]:
    """The sums of every part, and the names that were given."""
    table = usage.table
    namer = _NodeNamer(usage, heaps)
    out: dict[_Key, _NodeSum] = {}
    classes, unusable = classes_of(usage).tolist(), unusable_bytes(usage).tolist()
    kinds = list(MemoryClass)
    for i in range(len(table)):
        span, base, state, type_, protect, claim = table.row(i)
        kind = kinds[classes[i]]
        start = span.start + unusable[i]
        if unusable[i]:
            _add(out, (MemoryClass.UNUSABLE, "below a multiple of 64 kB", ""), Span(span.start, start), state, type_)
        if start < span.end:
            group, part = namer.names(kind, base, claim, _part(state, protect))
            _add(out, (kind, group, part), Span(start, span.end), state, type_)
    return out, namer


def _add(sums: dict[_Key, _NodeSum], key: _Key, span: Span, state: State, type_: Kind) -> None:
    found = sums.get(key)
    if found is None:
        found = sums[key] = _NodeSum(span.start)
    found.add(span.start, span.size, committed=state is State.MEM_COMMIT, private=type_ is Kind.MEM_PRIVATE)


def _part(state: State, protect: int) -> str:
    """The protection of committed memory, else its state."""
    if state is State.MEM_COMMIT:
        return protection_name(protect) or "in the dump"
    return {State.MEM_RESERVE: "reserved", State.MEM_FREE: "free"}.get(state, "not in the dump")


class _NodeNamer:
    """Names the parts of the memory. `owners`: name of a heap → its index; `keys`: name of an allocation → its key."""

    def __init__(self, usage: UsageMap, heaps: Sequence[Heap]) -> None:
        self._usage = usage
        self._names: dict[Span, tuple[str, str]] = {}
        self._previews: dict[int, str] = {}
        self.owners: dict[str, int] = {}
        self.keys: dict[str, str] = {}
        for heap in heaps:
            name = f"heap #{heap.index} {heap.address:#x}"
            self.owners[name] = heap.index
            for extent in heap.extents:
                self._names[extent.span] = name, _extent_words(extent.kind)
            for segment in heap.segments:
                self._names |= dict.fromkeys(segment.uncommitted, (name, _extent_words(ExtentKind.SEGMENT)))

    def names(self, kind: MemoryClass, base: int, claim: RegionClaim | None, part: str) -> tuple[str, str]:
        """(heap, module, thread or allocation; part of it)."""
        if kind is MemoryClass.HEAP and claim is not None:
            return self._names.get(claim.span, (claim.detail, part))
        if not kind.is_used:
            return "free", ""
        if claim is not None and kind is MemoryClass.PRIVATE and claim.item == Item.TEBS_AND_PEBS:
            return f"{claim.usage} {claim.detail}".rstrip(), part
        if claim is not None and claim.owner:
            return f"{claim.owner} (presumed)" if claim.trust is Trust.GUESS else claim.owner, part
        if claim is not None and (claim.detail or claim.item):
            return claim.detail or Item(claim.item).words, part
        return self._allocation(kind, base), part

    def _allocation(self, kind: MemoryClass, base: int) -> str:
        """An allocation that nothing names: its address and first bytes."""
        if base not in self._previews:
            data = b"" if kind is MemoryClass.IMAGE else self._usage.process.space.try_read(base, 12) or b""
            words = preview(data) if any(0x20 < byte < 0x7F for byte in data) else ""
            self._previews[base] = name = f"{base:#x} {words!r}" if words else f"{base:#x}"
            self.keys[name] = f"{base:#x}"
        return self._previews[base]


def _extent_words(kind: ExtentKind) -> str:
    return f"{kind.words}s" if kind in (ExtentKind.SEGMENT, ExtentKind.LARGE_BLOCK) else kind.words
