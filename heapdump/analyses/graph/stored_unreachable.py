"""Stores the report on unreachable blocks as columns and reads it back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated import stored_groups
from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.graph.unreachable import REPORTED, Reach
from heapdump.analyses.graph.unreachable_report import BlockSum, UnreachableReport
from heapdump.blocks.stored_checks import require_indices, require_length, require_texts


def columns_of(report: UnreachableReport) -> dict[str, NDArray[Any]]:
    """A report as columns, which `from_columns` reads."""
    sums = [(report.sums[reach].blocks, report.sums[reach].bytes) for reach in Reach]
    words = json.dumps([report.by, report.missing, report.evidence, report.has_way_in])
    states = np.array([state for state, _ in report.groups], np.uint8)
    groups = stored_groups.columns_of([one for _, one in report.groups])
    return groups | {
        "sums": np.array(sums, np.int64).reshape(-1),
        "state": states,
        "words": np.frombuffer(words.encode(), np.uint8),
        "members": np.concatenate([np.empty(0, np.int64), *report.cycles]),
        "lengths": np.array([len(cycle) for cycle in report.cycles], np.int64),
    }


def from_columns(columns: dict[str, NDArray[Any]], heaps: int, rows: Callable[[], int]) -> UnreachableReport:
    """The report that `columns_of` wrote, of a process with `heaps` heaps and `rows()` rows in its block table.

    `rows` is called only where there are cycles: their blocks are rows.

    Raises:
        ValueError, TypeError, LookupError: it is not what `columns_of` writes.
    """
    sums, states = columns["sums"], columns["state"]
    by, missing, evidence, has_way_in = json.loads(columns["words"].tobytes())
    require_texts([missing, *evidence] if isinstance(evidence, list) else evidence, "sentences")
    if not isinstance(has_way_in, bool):
        raise TypeError("has_way_in is neither true nor false")
    require_length(sums, 2 * len(Reach), np.int64, "sums")
    require_indices(sums, 0, 1 << 62, "sums")
    require_length(states, len(columns["bytes"]), np.uint8, "states")
    require_indices(states, min(REPORTED), max(REPORTED) + 1, "states")
    by_state = {reach: BlockSum(*pair) for reach, pair in zip(Reach, sums.reshape(-1, 2).tolist(), strict=True)}
    _require_sums(by_state, columns)
    totals = np.array([0, *(by_state[reach].bytes for reach in Reach)], np.int64)
    groups = zip(map(Reach, states.tolist()), stored_groups.from_columns(columns, heaps, totals[states]), strict=True)
    cycles = _cycles(columns["members"], columns["lengths"], rows)
    return UnreachableReport(by_state, tuple(groups), GroupKey(by), missing, cycles, tuple(evidence), has_way_in)


def _require_sums(sums: dict[Reach, BlockSum], columns: dict[str, NDArray[Any]]) -> None:
    """Makes sure that the groups of each state that is reported have all its blocks.

    Raises:
        ValueError: they have not.
    """
    states, blocks, sizes = (columns[name].tolist() for name in ("state", "count", "bytes"))
    for reach in REPORTED:
        own = [i for i, state in enumerate(states) if state == reach]
        if sums[reach] != BlockSum(sum(blocks[i] for i in own), sum(sizes[i] for i in own)):
            raise ValueError("groups and sums do not fit")


def _cycles(members: NDArray[Any], lengths: NDArray[Any], rows: Callable[[], int]) -> tuple[NDArray[np.int64], ...]:
    """The rows of each cycle.

    Raises:
        ValueError: they are no rows, or do not fit the lengths.
    """
    require_indices(members, 0, rows() if len(members) else 1, "members")
    require_indices(lengths, 1, len(members) + 1, "lengths")
    if len(lengths) > len(members) or int(lengths.sum()) != len(members):
        raise ValueError("cycles do not fit")
    return tuple(np.split(members.astype(np.int64), np.cumsum(lengths)[:-1])) if len(lengths) else ()
