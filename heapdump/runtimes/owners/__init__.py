"""Owners of memory that no structure of Windows names: allocators and runtimes told by their reservations and contents.

`rows` is the table: for each owner a name, the program that must be there, and a pattern. `unknown` is the memory that
nothing claims, `presence` says which programs are there, and the patterns are in `reservations`, `contents` and
`mapped_files`.
A row names nothing without evidence, and the evidence is part of the answer. The bytes of no total change.
"""

from __future__ import annotations

from collections.abc import Sequence

from heapdump.memory.regions import RegionTable
from heapdump.process.model import Process
from heapdump.runtimes.owners.owner import NamedOwner


def name_owners(process: Process, table: RegionTable) -> Sequence[NamedOwner]:
    """The owners of memory without a claim in this table, the surest last. Where they overlap, the later one counts.

    None without a complete memory map: patterns of reservations are not to be seen then.
    """
    if not table.is_complete_map:
        return ()
    from heapdump.runtimes.owners.rows import find_owners

    return find_owners(process, table)
