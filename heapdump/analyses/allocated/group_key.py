"""The keys that busy blocks can be grouped by. No other import, so that `--help` knows the words without numpy."""

from __future__ import annotations

from enum import StrEnum


class GroupKey(StrEnum):
    """A key that blocks are grouped by; its value is the word of the command line and of the JSON."""

    STACK = "stack"
    CALLER = "caller"
    MODULE = "module"
    SIZE = "size"
    HEAP = "heap"
    TYPE = "type"
    CONTENT = "content"
    STRUCTURE = "structure"
    OWNER = "owner"
    OWNER_MODULE = "owner-module"
    SOURCE = "source"

    @property
    def needs_stacks(self) -> bool:
        """True for keys that are made of recorded allocation stacks."""
        return self in (GroupKey.STACK, GroupKey.CALLER, GroupKey.MODULE)

    @property
    def has_code_names(self) -> bool:
        """True for keys that contain names of code or data: symbols change them."""
        return self.needs_stacks or self in (GroupKey.OWNER, GroupKey.OWNER_MODULE)

    @property
    def has_type_names(self) -> bool:
        """True for keys that contain types: PDBs change them."""
        return self in (GroupKey.TYPE, GroupKey.STRUCTURE)
