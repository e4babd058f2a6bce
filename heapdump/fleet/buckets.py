"""What the rows of many dumps have in common: the same bug, the same growth, one process over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def buckets_of(rows: Sequence[Row]) -> Row:
    """The buckets, those with most dumps first. A dump is in one bucket of bugs, and in one of growth, at most."""
    return {
        "bugs": [_bug(found) for found in _grouped(rows, _bug_key)],
        "growth": [_growth(found) for found in _grouped(rows, _growth_key)],
        "series": [_series(found) for found in _grouped(rows, _process_key) if _moments(found) > 1],
    }


def _grouped(rows: Iterable[Row], key: Callable[[Row], Hashable | None]) -> list[list[Row]]:
    groups: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        found = key(row)
        if found is not None:
            groups[found].append(row)
    return sorted(groups.values(), key=lambda group: (-len(group), str(group[0]["path"])))


def _bug_key(row: Row) -> Hashable | None:
    return row["incident"]["id"] if row["incident"] else None


def _growth_key(row: Row) -> Hashable | None:
    return (row["process"], row["top"]["key"]) if row["top"] else None


def _process_key(row: Row) -> Hashable | None:
    return (row["process"], row["pid"], row["create_time"]) if row["create_time"] and row["pid"] else None


def _moments(rows: Iterable[Row]) -> int:
    return len({row["time"] for row in rows})


def _bug(rows: Sequence[Row]) -> Row:
    first = rows[0]["incident"]
    return {
        "id": first["id"], "bug": first["bug"], "where": first["where"], "text": first["text"],
        "dumps": len(rows), "processes": sorted({str(row["process"]) for row in rows}), "paths": _paths(rows),
    }  # fmt: skip


def _growth(rows: Sequence[Row]) -> Row:
    sizes = [row["top"]["bytes"] for row in rows]
    return {
        "key": rows[0]["top"]["key"], "process": rows[0]["process"], "dumps": len(rows),
        "least_bytes": min(sizes), "most_bytes": max(sizes), "paths": _paths(rows),
    }  # fmt: skip


def _series(rows: Sequence[Row]) -> Row:
    ordered = sorted(rows, key=lambda row: row["time"] or 0)
    return {
        "process": rows[0]["process"], "pid": rows[0]["pid"], "dumps": len(rows),
        "first_private_bytes": ordered[0]["private_bytes"], "last_private_bytes": ordered[-1]["private_bytes"],
        "paths": _paths(ordered),
    }  # fmt: skip


def _paths(rows: Iterable[Row]) -> list[str]:
    return [str(row["path"]) for row in rows]
