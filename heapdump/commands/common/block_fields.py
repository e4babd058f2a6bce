"""`block ADDRESS --fields`: the type of a block and how it is known, its containers, and each word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from heapdump.commands.common.pointees import STYLES, pointee_record, pointees_of
from heapdump.commands.common.types import typing_for
from heapdump.render import text
from heapdump.render.view import Column, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.by_hand.block_fields import BlockField, MemberContainer
    from heapdump.analyses.types.typing import TypeLabel
    from heapdump.blocks.table import Block
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

MOST_BYTES = 4096
"""Bytes of a block whose words are shown."""

_HOW = {
    "exact": "read from the dump",
    "derived": "by type information, symbols or a validated header",
    "guess": "a guess, by what its words have in common with others, or look like",
}


@dataclass(frozen=True)
class FieldsView:
    """The decoded view of one block."""

    request: Request
    snapshot: Snapshot
    block: Block

    def record(self) -> Record:
        """The members `type`, `containers`, `held_by` and `fields` of the JSON record."""
        label = self._label
        return {
            "type": None if label is None else {"name": label.label, "trust": label.trust.value},
            "containers": [_container_record(one) for one in self._containers],
            "held_by": [
                {"name": name, "owner": None if owner is None else hex(owner), "offset": offset}
                for name, owner, offset, _ in self._holders
            ],
            "fields": [_field_record(one) for one in self._fields],
        }

    def items(self) -> Iterator[PageItem]:
        """Lines of the type and of containers, then a table of words."""
        lines = []
        if (label := self._label) is not None:
            lines.append([("type: ", "bold"), (label.label, ""), (f"  ({_how(label)})", "dim")])
        lines += [[("holds ", "bold"), (_container_words(one), "")] for one in self._containers]
        for name, owner, offset, where in self._holders:
            place = where if owner is None else f"block {owner:#x} +{offset:#x}"
            lines.append([("in ", "bold"), (f"{name} at {place}", "")])
        if lines:
            yield Lines(lines)
        hidden = max(0, self.block.size - MOST_BYTES)
        shown, more = self.request.shown(self._fields)
        yield Table(_COLUMNS, shown, title="Words", hidden=more, empty="no bytes")
        if hidden:
            yield Lines([[(f"{text.plural(hidden, 'more byte')}: heapdump memory shows them", "dim")]])

    @cached_property
    def _fields(self) -> list[BlockField]:
        from heapdump.analyses.by_hand.block_fields import fields_of
        from heapdump.analyses.clusters.find import edges_of

        snapshot, block = self.snapshot, self.block
        namer = snapshot.namer(self.request.image_path, self.request.symbol_path)
        pointees = pointees_of(snapshot, namer)
        space = snapshot.view_of(snapshot.heaps[block.heap]).space
        edges = edges_of(snapshot.process, snapshot.heaps)
        return fields_of(space, block.address, min(block.size, MOST_BYTES), edges, pointees.at)

    @cached_property
    def _node(self) -> int | None:
        from heapdump.analyses.by_hand.block_fields import node_of_row

        return node_of_row(self.snapshot.graph.rows, self.block.row)

    @property
    def _label(self) -> TypeLabel | None:
        return typing_for(self.request, self.snapshot).label_of(self.block.row)

    @cached_property
    def _containers(self) -> list[MemberContainer]:
        from heapdump.analyses.by_hand.block_fields import containers_in

        if self._node is None:
            return []
        types = self.snapshot.types
        shift = int(self.snapshot.graph.start[self._node]) - self.block.address
        return containers_in(self.snapshot.graph, self._node, types.containers, types.nodes, shift)

    @cached_property
    def _holders(self) -> list[tuple[str, int | None, int, str]]:
        """(name, address of the owner or None for a root, offset from the block's start, place in words)."""
        from heapdump.analyses.by_hand.block_fields import holders_of

        if self._node is None:
            return []
        graph, types = self.snapshot.graph, self.snapshot.types
        found: list[tuple[str, int | None, int, str]] = []
        for name, owner, offset in holders_of(self._node, types.containers, types.nodes):
            if owner >= 0:
                block = self.snapshot.walk.table.block(int(graph.rows[owner])).address
                found.append((name, block, int(graph.start[owner]) + offset - block, ""))
            else:
                at = graph.roots.areas[-1 - owner].span.start + offset
                found.append((name, None, offset, self.snapshot.process.where(at)))
        return found


def _container_words(one: MemberContainer) -> str:
    """`std::vector at +0x18: 48 of 64 bytes used, buffer 0x29fb0010`."""
    if one.elements is not None:
        return f"{one.name} at +{one.offset:#x}: {text.plural(one.elements, 'element')}, head {one.at:#x}"
    if one.used is None:
        return f"{one.name} at +{one.offset:#x}: head {one.at:#x}"
    used = f"{one.used:,} of {text.plural(one.capacity or 0, 'byte')} used"
    return f"{one.name} at +{one.offset:#x}: {used}, buffer {one.at:#x}"


def _container_record(one: MemberContainer) -> Record:
    return {
        "offset": one.offset, "name": one.name, "address": hex(one.at), "elements": one.elements,
        "used_bytes": one.used, "capacity_bytes": one.capacity,
    }  # fmt: skip


def _field_record(one: BlockField) -> Record:
    return {
        "offset": one.offset, "preview": None if one.data is None else one.data.hex(), "kind": one.kind,
        "decoded": one.text, "points_to": pointee_record(one.pointee),
    }  # fmt: skip


def _value(one: BlockField) -> str:
    return "??" if one.data is None else f"{int.from_bytes(one.data, 'little'):#x}"


_COLUMNS: tuple[Column[BlockField], ...] = (
    Column("Offset", lambda r: f"+{r.offset:#x}", "in the block", right=True),
    Column("Value", _value, "the word; ?? = not in the dump", right=True),
    Column("Kind", lambda r: r.kind, "pointer, number, float, text, time, zero, fill, other"),
    Column(
        "Meaning", lambda r: r.text, "its value in this form, or what it points to", flexible=30,
        style=lambda r: STYLES[r.pointee.kind] if r.pointee else "",
    ),
)  # fmt: skip


def _how(label: TypeLabel) -> str:
    """How a type is known."""
    is_declared = label.module and not label.label.startswith(("vtable ", "COM object "))
    if label.trust.value == "guess" and is_declared:
        return "a guess, by what a PDB declares of pointers to it, and by its size"
    return _HOW[label.trust.value]
