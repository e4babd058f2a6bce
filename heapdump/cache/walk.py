"""Stores a walk on disk and reads it back.

There is a file for each column of the block table, and a manifest with everything else. Of the dump's content only
addresses, sizes and the few bytes in findings are written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, astuple
from typing import Any

import numpy as np

from heapdump.blocks.findings import FINDING_RULES, Finding
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.stored_checks import require_ascending, require_indices, require_types
from heapdump.blocks.table import COLUMNS, BlockTable
from heapdump.blocks.walk import Check, CheckKind, HeapCount, HeapFacts, KindCount, Walk
from heapdump.cache.store import MANIFEST, Store, write_column
from heapdump.cache.texts import write_text

_PIECE = 1 << 20


def read_walk(store: Store, walk_again: Callable[[], BlockTable], heaps: int) -> Walk | None:
    """The stored walk; None where there is none, or it cannot be a walk of `heaps` heaps.

    The columns are opened when the table is first read. Where a column turns out to be damaged, `walk_again` makes the
    table.
    """
    if store.refusal:
        store.remarks.append(f"the index is not used: {store.refusal}")
        return None
    try:
        manifest = _manifest(store)
        if manifest is None:
            return None
        store.counts |= {"heaps": heaps, "row": int(manifest["rows"])}
        walk = _from_manifest(manifest, store, walk_again)
        _require_plausible(walk, heaps)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        store.remarks.append(f"the index in {store.folder} is not understood ({error!r}); walking again")
        return None
    store.touch()
    store.remarks.append(f"the blocks come from the index in {store.folder}")
    return walk


def write_walk(store: Store, walk: Walk) -> Walk:
    """Writes a walk and returns it. A failure is a remark, no error."""
    if not store.refusal:
        _write(store, walk)
    return walk


def _write(store: Store, walk: Walk) -> None:
    need = sum(column.nbytes for column in walk.table.columns())
    try:
        store.make_root()
        if store.refusal:
            return
        allowed = store.allowed_bytes()
        if need > allowed:
            store.remarks.append(f"no index was written: it needs {need:,} bytes, {allowed:,} are allowed")
            return
        with store.fresh(need) as fresh:
            folder = fresh / "index"
            folder.mkdir(mode=0o700)
            columns = zip(COLUMNS, walk.table.columns(), strict=True)
            seals = {name: write_column(folder / name, column) for name, column in columns}
            write_text(folder / MANIFEST, json.dumps(_to_manifest(walk, seals)))
            store.replace_with(folder)
        store.remarks.append(f"the blocks are kept in the index in {store.folder}")
    except OSError as error:
        store.remarks.append(f"no index could be written to {store.root}: {error.strerror or error}")


def _manifest(store: Store) -> dict[str, Any] | None:
    """The manifest; None where there is none, or it does not verify."""
    try:
        text = store.text(MANIFEST)
    except FileNotFoundError:
        return None
    except ValueError:
        store.remarks.append(f"the index in {store.folder} is damaged; walking again")
        return None
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def _to_manifest(walk: Walk, seals: dict[str, str]) -> dict[str, Any]:
    return {
        "rows": len(walk.table),
        "seals": seals,
        "counts": {str(heap): asdict(count) for heap, count in walk.counts.items()},
        "findings": [finding.to_record() for finding in walk.findings],
        "gaps": list(walk.gaps),
        "facts": {str(heap): dict(facts) for heap, facts in walk.facts.items()},
    }


def _from_manifest(manifest: dict[str, Any], store: Store, walk_again: Callable[[], BlockTable]) -> Walk:
    """The walk of a manifest.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: `_to_manifest` cannot have made it.
    """
    rows, seals = int(manifest["rows"]), {name: str(manifest["seals"][name]) for name in COLUMNS}
    return Walk(
        lambda: _table(store, rows, seals, walk_again),
        {int(heap): _count(count) for heap, count in manifest["counts"].items()},
        tuple(Finding(**finding) for finding in manifest["findings"]),
        tuple(map(str, manifest["gaps"])),
        {int(heap): _facts(facts) for heap, facts in manifest["facts"].items()},
    )


def _require_plausible(walk: Walk, heaps: int) -> None:
    """Makes sure that the manifest is one of a walk of `heaps` heaps.

    Raises:
        TypeError, ValueError: it holds values that no such walk has.
    """
    require_types((walk.counts, walk.findings, walk.gaps, walk.facts))
    if not all(0 <= heap < heaps for heap in (*walk.counts, *walk.facts)):
        raise ValueError("there is no such heap")
    if not all(finding.kind in FINDING_RULES for finding in walk.findings):
        raise ValueError("there is no such kind of finding")
    counts = (kind for count in walk.counts.values() for kind in (*count.kinds, *count.internal, *count.hosted))
    if any(number < 0 for kind in counts for number in astuple(kind)):
        raise ValueError("a count is negative")


def _sound(table: BlockTable, heaps: int) -> BlockTable:
    """The table, checked.

    Raises:
        ValueError: the columns hold values that no table of `heaps` heaps has.
    """
    require_ascending(table.entry, "addresses")
    require_indices(table.heap, 0, heaps, "heaps")
    for low in range(0, len(table), _PIECE):
        part = table.part(low, low + _PIECE)
        if (part.entry_sizes(slice(None)) < part.unused).any():
            raise ValueError("blocks are smaller than their unused bytes")
        kinds = np.flatnonzero(np.bincount(part.kind, minlength=1))
        if not set(kinds.tolist()) <= set(map(int, BlockKind.known())):
            raise ValueError("there is no such kind of block")
    return table


def _table(store: Store, rows: int, seals: dict[str, str], walk_again: Callable[[], BlockTable]) -> BlockTable:
    try:
        columns = {name: store.column(name, kind, rows, seals[name]) for name, kind in COLUMNS.items()}
        return _sound(BlockTable(**columns), store.counts["heaps"])
    except (OSError, ValueError, MemoryError) as error:  # the last one: of a forged number of rows
        store.remarks.append(f"the index in {store.folder} is damaged ({error}); walked again")
        store.delete()
        return walk_again()


def _count(record: dict[str, Any]) -> HeapCount:
    checks = tuple(Check(**(check | {"kind": CheckKind(check["kind"])})) for check in record["checks"])
    kinds = {name: _kinds(record[name]) for name in ("kinds", "internal", "hosted")}
    return HeapCount(**(record | kinds | {"checks": checks}))


def _facts(record: dict[str, Any]) -> HeapFacts:
    """The facts of one heap by their JSON record.

    Raises:
        TypeError: a value is not a number, a string or null.
    """
    if not all(value is None or isinstance(value, int | str) for value in record.values()):
        raise TypeError("a fact is neither a number nor a word")
    return record


def _kinds(records: list[dict[str, Any]]) -> tuple[KindCount, ...]:
    return tuple(KindCount(**(kind | {"kind": BlockKind.of(kind["kind"])})) for kind in records)
