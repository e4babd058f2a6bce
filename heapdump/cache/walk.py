"""A walk on disk: a file for each column of the block table, and a manifest with everything else that the walk learnt.

In: a `Walk` and the `Store` of the dump. Out: the same walk again. Of the dump's content only addresses, sizes and
the few bytes of findings are written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import COLUMNS, BlockTable
from heapdump.blocks.walk import Check, CheckKind, HeapCount, HeapFacts, KindCount, Walk
from heapdump.cache.store import MANIFEST, Store, write_column, write_text


def read_walk(store: Store, walk_again: Callable[[], BlockTable]) -> Walk | None:
    """The walk as it was written; None where none is stored or it does not verify.

    The columns are opened when the table is first needed. `walk_again` makes the table where a column is damaged then.
    """
    try:
        manifest = _manifest(store)
        if manifest is None:
            return None
        walk = _from_manifest(manifest, store, walk_again)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        store.remarks.append(f"the index in {store.folder} is not understood ({error!r}); walking again")
        return None
    store.touch()
    store.remarks.append(f"the blocks come from the index in {store.folder}")
    return walk


def write_walk(store: Store, walk: Walk) -> None:
    """Writes a walk; where that fails a remark says why, and the program goes on."""
    need = sum(column.nbytes for column in walk.table.columns())
    try:
        store.make_root()
        allowed = store.allowed_bytes()
        if need > allowed:
            store.remarks.append(f"no index was written: it needs {need:,} bytes, {allowed:,} are allowed")
            return
        with store.fresh(need) as fresh:
            folder = fresh / "index"
            folder.mkdir()
            columns = zip(COLUMNS, walk.table.columns(), strict=True)
            checksums = {name: write_column(folder / name, column) for name, column in columns}
            write_text(folder / MANIFEST, json.dumps(_to_manifest(walk, checksums)))
            store.replace_with(folder)
        store.remarks.append(f"the blocks are kept in the index in {store.folder}")
    except OSError as error:
        store.remarks.append(f"no index could be written to {store.root}: {error.strerror or error}")


def _manifest(store: Store) -> dict[str, Any] | None:
    """The manifest as it was written; None where there is none, or it does not verify."""
    try:
        text = store.text(MANIFEST)
    except FileNotFoundError:
        return None
    except ValueError:
        store.remarks.append(f"the index in {store.folder} is damaged; walking again")
        return None
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def _to_manifest(walk: Walk, checksums: dict[str, str]) -> dict[str, Any]:
    return {
        "rows": len(walk.table),
        "checksums": checksums,
        "counts": {str(heap): asdict(count) for heap, count in walk.counts.items()},
        "findings": [asdict(finding) for finding in walk.findings],
        "gaps": list(walk.gaps),
        "facts": {str(heap): dict(facts) for heap, facts in walk.facts.items()},
    }


def _from_manifest(manifest: dict[str, Any], store: Store, walk_again: Callable[[], BlockTable]) -> Walk:
    """Raises ValueError, KeyError, TypeError, AttributeError: it is not what `_to_manifest` makes."""
    rows, checksums = int(manifest["rows"]), {name: str(manifest["checksums"][name]) for name in COLUMNS}
    return Walk(
        lambda: _table(store, rows, checksums, walk_again),
        {int(heap): _count(count) for heap, count in manifest["counts"].items()},
        tuple(Finding(**finding) for finding in manifest["findings"]),
        tuple(map(str, manifest["gaps"])),
        {int(heap): _facts(facts) for heap, facts in manifest["facts"].items()},
    )


def _table(store: Store, rows: int, checksums: dict[str, str], walk_again: Callable[[], BlockTable]) -> BlockTable:
    try:
        return BlockTable(**{name: store.column(name, kind, rows, checksums[name]) for name, kind in COLUMNS.items()})
    except (OSError, ValueError) as error:
        store.remarks.append(f"the index in {store.folder} is damaged ({error}); walked again")
        store.delete()
        return walk_again()


def _count(record: dict[str, Any]) -> HeapCount:
    checks = tuple(Check(**(check | {"kind": CheckKind(check["kind"])})) for check in record["checks"])
    kinds = {name: _kinds(record[name]) for name in ("kinds", "internal", "hosted")}
    return HeapCount(**(record | kinds | {"checks": checks}))


def _facts(record: dict[str, Any]) -> HeapFacts:
    """The facts that the walk of one heap inferred.

    Raises:
        TypeError: a value is not a number, a word or null.
    """
    if not all(value is None or isinstance(value, int | str) for value in record.values()):
        raise TypeError("a fact is neither a number nor a word")
    return record


def _kinds(records: list[dict[str, Any]]) -> tuple[KindCount, ...]:
    return tuple(KindCount(**(kind | {"kind": BlockKind.of(kind["kind"])})) for kind in records)
