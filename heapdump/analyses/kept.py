"""Finished answers as text, the way they are kept beside the walk: what a second question need not find again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.groups import Group
from heapdump.analyses.hoards import Hoard
from heapdump.analyses.leaks import LeakGroup
from heapdump.analyses.lost import Report, Sum
from heapdump.analyses.structure import Structure
from heapdump.analyses.unreachable import Reach
from heapdump.blocks.records import Trust

Columns = dict[str, NDArray[Any]]


def hoards_to_columns(found: tuple[Hoard, ...]) -> Columns:
    """Suspects as columns of an index."""
    return _columns({"hoards": [asdict(hoard) for hoard in found]})


def hoards_of_columns(columns: Columns | None) -> tuple[Hoard, ...] | None:
    """The suspects of kept columns; None where there are none."""
    if columns is None:
        return None
    return tuple(Hoard(**record | {"structure": record["structure"] and Structure(**record["structure"])}) for record in _value(columns)["hoards"])


def report_to_columns(report: Report) -> Columns:
    """A report on unreachable blocks as columns of an index. Frames are left out: groups by stack are not kept."""
    groups = [{"kind": kind, "key": one.key, "trust": one.trust.value, "group": asdict(one.group)} for kind, one in report.groups]
    sums = {str(int(kind)): (found.blocks, found.bytes) for kind, found in report.sums.items()}
    return _columns({"sums": sums, "groups": groups, "by": report.by, "missing": report.missing})


def report_of_columns(columns: Columns | None) -> Report | None:
    """The report of kept columns; None where there are none."""
    if columns is None:
        return None
    value = _value(columns)
    sums = {Reach(int(kind)): Sum(*found) for kind, found in value["sums"].items()}
    groups = tuple((Reach(one["kind"]), LeakGroup(one["key"], _group(one["group"]), (), Trust(one["trust"]))) for one in value["groups"])
    return Report(sums, groups, value["by"], value["missing"])


def _group(record: dict[str, Any]) -> Group:
    return Group(**record | {name: tuple(record[name]) for name in ("heaps", "sample")})


def _columns(value: dict[str, Any]) -> Columns:
    return {"text": np.frombuffer(json.dumps(value).encode(), np.uint8)}


def _value(columns: Columns) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(columns["text"].tobytes())
    return value
