"""Waste of the blocks of each type: copies, zeros, headers and rounding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.types.content_kind import VAGUE_KINDS
from heapdump.analyses.waste.duplicates import Copies
from heapdump.analyses.waste.savings import SAMPLES, Saving, WasteContext, WasteKind, heaviest
from heapdump.wording import plural

_NO_TYPE = "blocks of no known type"


def types_of_rows(context: WasteContext, rows: Sequence[int]) -> list[str]:
    """The type of each row of the block table; "" where nothing tells it."""
    if not rows:
        return []
    typing = context.typing()
    names = [*("" if one.label in VAGUE_KINDS else one.short for one in typing.labels), ""]
    return [names[number] for number in typing.of_rows(np.array(rows, np.int64)).tolist()]


def copies_by_type(context: WasteContext, copies: Sequence[Copies]) -> Iterator[Saving]:
    """The copies of each type together, and the blocks of zeros of each type."""
    groups: dict[tuple[WasteKind, str], list[tuple[int, ...]]] = defaultdict(list)
    for one, type_ in zip(copies, types_of_rows(context, [one.rows[0] for one in copies]), strict=True):
        if one.size is not None:
            groups[WasteKind.DUPLICATES, type_].append(one.rows)
            continue
        for row, its in zip(one.rows, types_of_rows(context, one.rows), strict=True):
            groups[WasteKind.ZEROS, its].append((row,))
    for (kind, type_), found in groups.items():
        rows = np.array([row for same in found for row in same], np.int64)
        size = context.table.sizes(rows).astype(np.int64)
        total = int(size.sum())
        if kind is WasteKind.ZEROS:
            saved, text = total, f"{plural(len(rows), 'block')} of zeros: {type_ or _NO_TYPE}"
        else:
            saved = total - int(context.table.sizes(np.array([same[0] for same in found])).sum())
            text = f"{len(rows):,} copies of {plural(len(found), 'content')}: {type_ or _NO_TYPE}"
        yield Saving(kind, saved, total, len(rows), text, heaviest(rows, size), type=type_)


def padding_by_type(context: WasteContext, busy: NDArray[np.int64]) -> Iterator[Saving]:
    """Headers and rounding of busy blocks, by their type."""
    typing = context.typing()
    number = typing.of_rows(busy)
    occupied, asked = context.table.entry_sizes(busy).astype(np.int64), context.table.sizes(busy).astype(np.int64)
    count_of_labels = len(typing.labels) + 1
    count, total = (
        np.bincount(number, minlength=count_of_labels),
        np.bincount(number, occupied, minlength=count_of_labels),
    )
    saved = np.bincount(number, occupied - asked, minlength=count_of_labels)
    order, first = np.argsort(number, kind="stable"), np.cumsum(count) - count
    for one in np.flatnonzero(count).tolist():
        type_ = "" if one == len(typing.labels) else typing.labels[one].short
        blocks = plural(int(count[one]), "busy block")
        text = f"headers and rounding of {blocks}: {type_ or _NO_TYPE}"
        sample = tuple(busy[order[first[one] :][: min(SAMPLES, int(count[one]))]].tolist())
        yield Saving(WasteKind.PADDING, int(saved[one]), int(total[one]), int(count[one]), text, sample, type=type_)
