"""Columns of CSV: programs that read it need the header also where an answer has no record."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from heapdump.errors import WrongUsage

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

_BLOCK = "address entry heap segment kind state size entry_size flags stack trust"
_GROUP = "key count bytes min_size max_size share heaps frames sample trust"
_HEAP = (
    "address index view kind role flags flag_names segments reserved_bytes committed_bytes free_bytes free_blocks busy_bytes "
    "busy_blocks lfh_free_blocks lfh_free_bytes overhead_bytes by_kind uncommitted_ranges virtual_blocks virtual_bytes "
    "lock_contention lock.owner lock.owner_exists lock.waiters lock.recursion lock.waiting front_end stack_traces "
    "external_fragmentation virtual_fragmentation integrity trust layout normal_heap stated.free_bytes "
    "stated.reserved_bytes stated.committed_bytes stated.virtual_bytes stated.segments stated.uncommitted_ranges notes"
)
_FRAME = "frame address module symbol offset file line trust sp fp return how note signature args"
_REGISTER = "register value points_to.kind points_to.text points_to.address points_to.offset"
_FIELDS = {
    "blocks": _BLOCK,
    "blocks --stat": "size count bytes share",
    "check": "id kind severity bug incident heap block address length message expected found culprit frames access evidence",
    "diff": "key id frames old_count new_count delta_count old_bytes new_bytes delta_bytes values trend min_size max_size sample trust",
    "gaps": "address bytes before.address before.usage before.detail after.address after.usage after.detail",
    "disasm": "address bytes text target is_current target_address operand.text operand.address operand.value",
    "heap": _HEAP,
    "heaps": _HEAP,
    "leaks": _GROUP,
    "leaks --unreachable": f"kind {_GROUP}",
    "leaks --unreachable --report-objects": "address size kind",
    "managed": "type count bytes",
    "memory": "address bytes value points_to.kind points_to.text points_to.address points_to.offset",
    "modules": "name path address size timestamp checksum version pdb.path pdb.guid pdb.age pdb.source pdb.reason listed hooks",
    "page-heap": "address index role mode normal_heap busy_blocks busy_bytes freed_blocks freed_bytes virtual_bytes committed_bytes reserved_bytes cost stack_traces",
    "page-heap --state": f"{_BLOCK} free_stack",
    "refs": "level at root weak block size offset to to_offset type",
    "regions": "address size allocation_base state type protect usage detail bytes_in_dump evidence trust",
    "retained": "address size retained_bytes retained_blocks share dominator type",
    "retained --tree": "level offsets is_array root type count bytes retained_bytes share sample",
    "retained --group-by": "key count bytes retained_bytes share trust",
    "struct": "offset field type value meaning address",
    "search": "address usage block text lies_in.kind lies_in.text lies_in.address lies_in.offset",
    "threads --frames": f"id index name {_FRAME}",
    "threads --frames --registers": f"id index name {_FRAME} {_REGISTER}",
    "threads --registers": f"id index name {_REGISTER}",
    "threads": "id index name teb stack_base stack_limit stack_reserved ip sp start_address teb32 stack32_base stack32_limit ip32 sp32 waits_for holds",
    "virt-blocks": f"{_BLOCK} list_entry commit_bytes reserve_bytes",
    "waste": "kind bytes of_bytes share count text heap sample trust type container",
}
"""Command, with the options that change its records → the columns."""


def fields_of(question: str) -> tuple[str, ...]:
    """The columns of a command; none for one that always has a record."""
    return tuple(_FIELDS.get(question, "").split())


def parse_columns(names: str | None, format_: str) -> tuple[str, ...]:
    """The names behind --columns; none where it is not given.

    Raises:
        WrongUsage: no name; or a format whose records have all members.
    """
    if names is None:
        return ()
    if format_ in ("json", "jsonl"):
        raise WrongUsage(f"--columns chooses the columns of tables and csv; {format_} has all members of a record")
    found = tuple(dict.fromkeys(name.strip().lower().replace("-", "_") for name in names.split(",") if name.strip()))
    if not found:
        raise WrongUsage("--columns: name the columns, with commas between them: --columns address,size")
    for name in found:
        if not re.fullmatch(r"[a-z0-9_.]+", name):  # an answer without rows has no names to compare with
            raise WrongUsage(
                f"no column {name!r}: columns are named as the members of the JSON: --columns address,size"
            )
    return found


def _fields_of_command(command: str) -> tuple[str, ...]:
    """The columns that the answers of a command have, whatever its options; none where that is not known."""
    found = (name for question, names in _FIELDS.items() if question.split()[0] == command for name in names.split())
    return tuple(dict.fromkeys(found))


def complete_columns(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names that a shell offers behind the last comma."""
    from click.shell_completion import CompletionItem

    before, comma, begun = incomplete.rpartition(",")
    names = (name for name in _fields_of_command(ctx.command.name or "") if name.startswith(begun))
    return [CompletionItem(f"{before}{comma}{name}") for name in names]
