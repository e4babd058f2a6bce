"""Pointees: the object that names them, their JSON record, their text in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.analyses.by_hand.pointees import Pointee, Pointees
    from heapdump.process.symbols.namer import Namer
    from heapdump.snapshot import Snapshot

STYLES = {"block": "green", "stack": "magenta", "module": "cyan", "region": "dim"}
"""Kind of a pointee → its style in tables."""


def pointees_of(snapshot: Snapshot, namer: Namer, *, quotes: bool = True) -> Pointees:
    """The namer of pointees of this dump. `quotes`: True to quote the texts that blocks hold."""
    from heapdump.analyses.by_hand.pointees import Pointees, Words, managed_words

    words = Words(namer, lambda address: managed_words(snapshot.runtimes, address), quotes)
    return Pointees(snapshot.process, snapshot.usage, snapshot.heaps, lambda: snapshot.walk.table, words)


POINTEE_MEMBERS = ("kind", "text", "address", "offset")
"""Members of the object of `pointee_record`."""


def pointee_record(pointee: Pointee | None) -> Record | None:
    """`points_to` of a record; None where a pointer leads nowhere."""
    if pointee is None:
        return None
    return {
        "kind": pointee.kind.value, "text": pointee.text, "address": hex(pointee.start), "offset": pointee.offset
    }  # fmt: skip


def hex_bytes(data: tuple[int | None, ...] | bytes, separator: str = "") -> str:
    """Two digits for each byte, `??` for one that the dump does not hold."""
    return separator.join("??" if byte is None else f"{byte:02x}" for byte in data)
