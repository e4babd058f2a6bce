"""Groups as columns and back, for the index: numbers as they are, each frame and each text once.

A group becomes an object when it is asked for: of 50,000 groups a page shows twenty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.groups import BlockGroup
from heapdump.analyses.allocated.leaks import LeakGroup
from heapdump.blocks.stored_checks import require_firsts, require_indices, require_length
from heapdump.process.symbols.namer import Frame
from heapdump.trust import Trust

Columns = dict[str, NDArray[Any]]
_TRUSTS = tuple(Trust)
_NUMBERS = ("value", "count", "bytes", "min_size", "max_size")
_LISTS = ("heaps", "sample", "frames")
_MOST = 1 << 62


@dataclass(frozen=True, eq=False)
class GroupList(Sequence[LeakGroup]):
    """g groups, each made when it is asked for.

    `columns`: as `columns_of` writes them. `total`: (g,) int64 bytes of which each group is a share. `frames`, `keys`,
    `identities`: the values that numbers in the columns stand for.
    """

    columns: Columns
    total: NDArray[np.int64]
    frames: Sequence[Frame]
    keys: Sequence[str]
    identities: Sequence[str]

    def __len__(self) -> int:
        """The number of groups."""
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> LeakGroup: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[LeakGroup, ...]: ...

    def __getitem__(self, place: int | slice) -> LeakGroup | tuple[LeakGroup, ...]:
        """A group, or groups."""
        if isinstance(place, slice):
            return tuple(self._group(i) for i in range(len(self))[place])
        return self._group(range(len(self))[place])

    def __iter__(self) -> Iterator[LeakGroup]:
        """Every group, most bytes first."""
        return map(self._group, range(len(self)))

    def _group(self, i: int) -> LeakGroup:
        value, count, size, low, high = (int(self.columns[name][i]) for name in _NUMBERS)
        heaps, sample, frames = (self._list(name, i) for name in _LISTS)
        group = BlockGroup(value, count, size, low, high, size / (int(self.total[i]) or 1), heaps, sample)
        trust = _TRUSTS[int(self.columns["trust"][i])]
        return LeakGroup(self.keys[i], group, tuple(self.frames[at] for at in frames), trust, self.identities[i])

    def _list(self, name: str, i: int) -> tuple[int, ...]:
        first = self.columns[f"{name}_first"]
        return tuple(self.columns[name][int(first[i]) : int(first[i + 1])].tolist())

    def sums(self) -> tuple[int, int]:
        """(blocks, bytes) of all groups together."""
        return int(self.columns["count"].sum()), int(self.columns["bytes"].sum())


def columns_of(groups: Sequence[LeakGroup]) -> Columns:
    """The groups as columns, which `from_columns` reads; frames by number."""
    if isinstance(groups, GroupList):
        return groups.columns
    numbers: dict[Frame, int] = {}
    own = [found.group for found in groups]
    out: Columns = {name: np.array([getattr(one, name) for one in own], np.int64) for name in _NUMBERS}
    out["trust"] = np.array([_TRUSTS.index(found.trust) for found in groups], np.uint8)
    frames = [[numbers.setdefault(frame, len(numbers)) for frame in found.frames] for found in groups]
    for name, lists in (
        ("heaps", [one.heaps for one in own]), ("sample", [one.sample for one in own]), ("frames", frames),
    ):  # fmt: skip
        out[f"{name}_first"] = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        out[name] = np.array([item for one in lists for item in one], np.int64)
    texts = {
        "frames": [_frame(frame) for frame in numbers],
        "keys": [found.key for found in groups],
        "identities": [found.identity for found in groups],
    }
    return out | {"text": np.frombuffer(json.dumps(texts).encode(), np.uint8)}


def from_columns(columns: Columns, heaps: int, totals: NDArray[np.int64] | None = None) -> GroupList:
    """The groups that `columns_of` wrote, of a process with `heaps` heaps. `totals`: as in `GroupList`, None: of all.

    Raises:
        ValueError, TypeError, LookupError: the columns are not of the form that `columns_of` writes.
    """
    texts = json.loads(columns["text"].tobytes())
    keys, identities = texts["keys"], texts["identities"]
    frames, groups = _frames(texts["frames"]), len(keys)
    _require_all((*keys, *identities), str)
    if len(identities) != groups:
        raise ValueError("keys and identities do not fit")
    for name in _NUMBERS:
        require_length(columns[name], groups, np.int64, name)
        require_indices(columns[name], 0, _MOST, name)
    require_length(columns["trust"], groups, np.uint8, "trust")
    require_indices(columns["trust"], 0, len(_TRUSTS), "trust")
    for name, most in zip(_LISTS, (heaps, _MOST, len(frames)), strict=True):
        require_firsts(columns[f"{name}_first"], groups, len(columns[name]), name)
        require_indices(columns[name], 0, most, name)
    if not (np.diff(columns["sample_first"]) > 0).all() or not (np.diff(columns["heaps_first"]) > 0).all():
        raise ValueError("a group has no block")
    total = np.full(groups, int(columns["bytes"].sum()), np.int64) if totals is None else totals
    return GroupList(columns, total, frames, keys, identities)


def _frames(rows: Sequence[Sequence[Any]]) -> list[Frame]:
    """The frames that `_frame` wrote. Checked by member, not by frame: there are thousands."""
    if not rows:
        return []
    members = list(zip(*rows, strict=True))
    if len(members) != len(_MEMBERS):
        raise ValueError("a frame has other members")
    for values, types in zip(members, _MEMBERS, strict=True):
        _require_all(values, *types)
    return [
        Frame(address, module, symbol, offset, file, line, Trust(trust), note, signature)
        for address, module, symbol, offset, file, line, trust, note, signature in rows
    ]


def _require_all(values: Sequence[object], *types: type) -> None:
    """Raises TypeError, ValueError: a value is of another kind, a number has more than 64 bits, a text is no text."""
    if not set(map(type, values)) <= set(types):
        raise TypeError("a member is not what it should be")
    "".join(value for value in values if isinstance(value, str)).encode()
    numbers = [value for value in values if isinstance(value, int)]
    if numbers and not -(1 << 64) < min(numbers) <= max(numbers) < 1 << 64:
        raise ValueError("a number is out of range")


_NONE = type(None)
_MEMBERS: tuple[tuple[type, ...], ...] = (
    (int,), (str, _NONE), (str, _NONE), (int, _NONE), (str, _NONE), (int, _NONE), (str,), (str,), (str, _NONE),
)  # fmt: skip
"""The types of the members of a frame, in their order."""


def _frame(frame: Frame) -> list[Any]:
    return [
        frame.address, frame.module, frame.symbol, frame.offset, frame.file, frame.line, frame.trust.value, frame.note,
        frame.signature,
    ]  # fmt: skip
