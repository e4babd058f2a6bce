"""Regions that match filters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.usage import UsageKind, UsageMap
from heapdump.errors import WrongUsage
from heapdump.memory.regions import Kind, Region, State, protection_name
from heapdump.spans import Span

_STATES = {"commit": State.MEM_COMMIT, "reserve": State.MEM_RESERVE, "free": State.MEM_FREE}
_KINDS = {"private": Kind.MEM_PRIVATE, "mapped": Kind.MEM_MAPPED, "image": Kind.MEM_IMAGE}


def select(
    usage_map: UsageMap,
    *,
    usage: str | None = None,
    state: str | None = None,
    type_: str | None = None,
    protect: str | None = None,
    at: Span | None = None,
) -> list[Region]:
    """The regions for which every given filter holds, ascending.

    `usage`: in any case; `Heap` means both halves of a WOW64 process. `state`: `commit`, `reserve`, `free`. `type_`:
    `private`, `mapped`, `image`. `protect`: a part of the name of the protection. `at`: they hold one of its addresses.

    Raises:
        WrongUsage: a usage that this process does not have.
    """
    table = usage_map.table
    keep = np.ones(len(table), bool)
    if usage is not None:
        keep &= np.isin(usage_map.codes, _codes(usage_map, usage))
    if state is not None:
        keep &= table.state == _STATES[state.lower()]
    if type_ is not None:
        keep &= table.type == _KINDS[type_.lower()]
    if protect is not None:
        keep &= _has_protection(table.protect, protect.upper())
    if at is not None:
        keep &= (table.start < np.uint64(at.end)) & (table.end > np.uint64(at.start))
    return list(usage_map.regions(np.flatnonzero(keep)))


def _codes(usage_map: UsageMap, wanted: str) -> list[int]:
    wanted = wanted.lower()
    codes = [code for code, name in enumerate(usage_map.names) if wanted in _spellings(name, usage_map.kind(code))]
    if not codes:
        present = sorted(usage_map.names[i] for i in set(usage_map.codes.tolist()))
        raise WrongUsage(f"no usage {wanted!r} in this process; there are: {', '.join(present)}")
    return codes


def _spellings(name: str, kind: UsageKind) -> tuple[str, ...]:
    """The words that name a usage, in lower case: `heap32` and `heap`, `<unknown>` and `unknown`."""
    return name.lower(), kind.lower(), kind.name.lower()


def _has_protection(values: NDArray[np.uint32], word: str) -> NDArray[np.bool_]:
    has_word = {int(v): word in (protection_name(int(v)) or "") for v in np.unique(values)}
    return np.array([has_word[v] for v in values.tolist()], bool)
