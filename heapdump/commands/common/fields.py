"""Columns of CSV where an answer has no record: programs that read it need the header in any case."""

from __future__ import annotations

_BLOCK = "address entry heap segment kind state size entry_size flags stack trust"
_GROUP = "key count bytes min_size max_size share heaps frames sample trust"
_FIELDS = {
    "blocks": _BLOCK,
    "blocks --stat": "size count bytes share",
    "check": "id kind severity bug incident heap block address length message expected found culprit frames access evidence",
    "diff": "key id frames old_count new_count delta_count old_bytes new_bytes delta_bytes values trend min_size max_size sample trust",
    "gaps": "address bytes before.address before.usage before.detail after.address after.usage after.detail",
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
    "retained --group-by": "key count bytes retained_bytes share trust",
    "search": "address usage block text lies_in.kind lies_in.text lies_in.address lies_in.offset",
    "threads --frames": "id index name frame address module symbol offset file line trust sp fp return how note signature args",
    "threads": "id index name teb stack_base stack_limit stack_reserved ip sp start_address teb32 stack32_base stack32_limit ip32 sp32 waits_for holds",
    "virt-blocks": f"{_BLOCK} list_entry commit_bytes reserve_bytes",
    "waste": "kind bytes of_bytes share count text heap sample trust",
}
"""Command, with the options that change its records → the columns."""


def fields_of(question: str) -> tuple[str, ...]:
    """The columns of a command; none for one that always has a record."""
    return tuple(_FIELDS.get(question, "").split())
