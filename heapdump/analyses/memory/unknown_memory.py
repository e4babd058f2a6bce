"""The usage `<unknown>` by owner: runtimes, recognised owners, mapped files, and what nothing names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.analyses.memory.items import Item
from heapdump.analyses.memory.usage import UNKNOWN, UsageMap
from heapdump.memory.regions import Kind, RegionClaim, State, known
from heapdump.trust import Trust

_NOT_NAMED = {Kind.MEM_PRIVATE: Item.UNKNOWN_PRIVATE, Kind.MEM_MAPPED: Item.MAPPED}
_INFERRED = (Item.RUNTIME_OTHER, Item.COLLECTOR, Item.CLASS_METADATA)


@dataclass(frozen=True, slots=True)
class OwnerShare:
    """Memory of one owner.

    Attributes:
        owner: its name.
        regions: number of regions.
        bytes: committed and reserved bytes.
        committed_bytes: committed bytes.
        trust: in the owner; None where no owner is known.
        evidence: for the first region of a recognised owner, in words; "" for others.
    """

    owner: str
    regions: int
    bytes: int
    committed_bytes: int
    trust: Trust | None
    evidence: str = ""


def owners_of_unknown(usage: UsageMap) -> tuple[OwnerShare, ...]:
    """A row for each owner, most committed bytes first; their bytes are those of the usage `<unknown>`."""
    table = usage.table
    rows = np.flatnonzero(usage.codes == usage.names.index(UNKNOWN))
    found: dict[str, OwnerShare] = {}
    types, sizes, states = table.type[rows].tolist(), table.size[rows].tolist(), table.state[rows].tolist()
    for number, kind, size, state in zip(table.claim[rows].tolist(), types, sizes, states, strict=True):
        claim = table.claims[number] if number >= 0 else None
        name, trust, evidence = _owner(claim, kind)
        before = found.get(name, OwnerShare(name, 0, 0, 0, trust, evidence))
        committed = before.committed_bytes + (size if state == State.MEM_COMMIT else 0)
        found[name] = OwnerShare(name, before.regions + 1, before.bytes + size, committed, trust, before.evidence)
    return tuple(sorted(found.values(), key=lambda row: (-row.committed_bytes, -row.bytes, row.owner)))


def _owner(claim: RegionClaim | None, kind: int) -> tuple[str, Trust | None, str]:
    """(name, trust, evidence) of a region."""
    if claim is None:
        return _NOT_NAMED.get(known(Kind, kind), Item.UNKNOWN).words, None, ""
    if claim.owner:
        is_guess = claim.trust == Trust.GUESS
        name = f"{claim.owner} (presumed)" if is_guess else claim.owner
        return name, Trust.GUESS if is_guess else Trust.DERIVED, claim.evidence
    item = Item(claim.item)
    return item.words, Trust.DERIVED if item in _INFERRED else Trust.EXACT, ""
