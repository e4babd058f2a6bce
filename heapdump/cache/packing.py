"""Columns of integers in few bytes: small numbers take one byte or two, equal ones none, ascending ones their steps.

    value[i]   = base + small[i] << shift                      plain
    value[i]   = value[i - 1] + (base + small[i] << shift)     steps, value[-1] = 0
    exceptions = places whose number does not fit: the whole number (of steps: the whole step), in a list behind

The file: `small`, one after the other; then the places of the exceptions, u32 or u64; then their numbers, i64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_ROWS = 1 << 12
"""Shorter columns are written as they are."""

_PIECE = 1 << 18
_SAMPLES, _SAMPLE = 16, 1 << 10
_WIDTHS = (0, 1, 2, 4)
_MOST_EXCEPTIONS = 16
"""At most every sixteenth number is an exception; a column with more of them is written as it is."""

_EXCEPTION_BYTES = 16
_RAW = -1


@dataclass(frozen=True, slots=True)
class Packing:
    """How a column is written. `width`: bytes of a small number, -1: the column as it is; see the module."""

    width: int = _RAW
    steps: bool = False
    base: int = 0
    shift: int = 0
    exceptions: int = 0

    def file_bytes(self, rows: int, item_bytes: int) -> int:
        """Bytes of the file of a column of `rows` numbers of `item_bytes` bytes."""
        if self.width == _RAW:
            return rows * item_bytes
        return rows * self.width + self.exceptions * (_place(rows).itemsize + 8)

    def record(self) -> list[int]:
        """The packing as numbers, which `of` reads."""
        return [int(member) for member in astuple(self)]

    @classmethod
    def of(cls, record: list[int]) -> Packing:
        """The packing that `record` wrote.

        Raises:
            ValueError: there is none like that.
        """
        width, steps, base, shift, exceptions = (int(member) for member in record)
        sound = width in (_RAW, *_WIDTHS) and steps in (0, 1) and 0 <= shift < 32 and exceptions >= 0
        if not sound or not -(1 << 62) < base < 1 << 62:
            raise ValueError("a column is packed in another way")
        return cls(width, bool(steps), base, shift, exceptions)


def pack(column: NDArray[Any]) -> tuple[Packing, NDArray[np.uint8]]:
    """(how a column is packed, the bytes of its file)."""
    raw = np.ascontiguousarray(column)
    if len(raw) < _LEAST_ROWS or raw.dtype.kind not in "iu" or (raw.itemsize == 1 and raw.dtype.kind == "i"):
        return Packing(), raw.view(np.uint8).reshape(-1)
    packing = _chosen(raw)
    packed = _packed(raw, packing) if packing.width != _RAW else None
    return packed or (Packing(), raw.view(np.uint8).reshape(-1))


def unpack(data: NDArray[np.uint8], packing: Packing, rows: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """The column of `rows` numbers; of a packing of -1 the bytes themselves, without a copy.

    Raises:
        ValueError: the bytes are not what `pack` writes.
    """
    if packing.width == _RAW:
        return data.view(kind)
    if packing.exceptions > rows:
        raise ValueError("a column has too many exceptions")
    small = data[: rows * packing.width].view(f"<u{packing.width}") if packing.width else None
    rest = data[rows * packing.width :]
    at = packing.exceptions * _place(rows).itemsize
    places, numbers = rest[:at].view(_place(rows)).astype(np.int64), _aligned(rest[at:]).view(np.int64)
    if len(places) and (int(places[-1]) >= rows or (np.diff(places) <= 0).any()):
        raise ValueError("exceptions of a column do not ascend")
    out, last = np.empty(rows, kind), 0
    is_simple = not (packing.steps or packing.shift or packing.exceptions)
    for low, high in _pieces(rows):
        if is_simple and small is not None and 0 <= packing.base < 1 << 31 and packing.width < kind.itemsize:
            np.add(small[low:high], kind.type(packing.base), out=out[low:high], dtype=kind, casting="unsafe")
            continue
        part = np.full(high - low, packing.base, np.int64)
        if small is not None:
            part += small[low:high]
        part <<= packing.shift
        first, behind = np.searchsorted(places, (low, high)).tolist()
        part[places[first:behind] - low] = numbers[first:behind]
        if packing.steps:
            part[0] += last
            np.cumsum(part, out=part)
            last = int(part[-1])
        out[low:high] = part.view(np.uint64) if kind.kind == "u" else part
    return out


def _aligned(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if len(data) % 8:
        raise ValueError("exceptions of a column have another length")
    return data if data.ctypes.data % 8 == 0 else data.copy()


def _pieces(rows: int) -> Iterator[tuple[int, int]]:
    return ((low, min(low + _PIECE, rows)) for low in range(0, rows, _PIECE))


def _place(rows: int) -> np.dtype[Any]:
    """The type of a place in a column."""
    return np.dtype("<u4" if rows < 1 << 32 else "<u8")


def _chosen(column: NDArray[Any]) -> Packing:
    """The packing that is best for samples of a column."""
    starts = np.linspace(0, len(column) - _SAMPLE - 1, _SAMPLES).astype(np.int64)
    samples = np.stack([column[at : at + _SAMPLE + 1] for at in starts.tolist()]).astype(np.int64)
    best, least = Packing(), column.itemsize * samples[:, 1:].size * 7 // 8
    for steps, numbers in ((False, samples[:, 1:]), (True, np.diff(samples, axis=1))):
        flat = numbers.reshape(-1)
        shift = 0
        while shift < 6 and steps and not (flat & ((2 << shift) - 1)).any():
            shift += 1
        base = int(flat.min()) >> shift
        for width in _WIDTHS:
            over = int(np.count_nonzero((flat >> shift) - base >= 1 << 8 * width))
            cost = flat.size * width + over * _EXCEPTION_BYTES
            if cost < least:
                best, least = Packing(width, steps, base, shift), cost
    return best


def _packed(column: NDArray[Any], packing: Packing) -> tuple[Packing, NDArray[np.uint8]] | None:
    """The column in this packing, with its exceptions; None where they are too many."""
    rows, width, last = len(column), packing.width, 0
    small = np.empty(rows, f"<u{width}") if width else None
    places, numbers, count = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for low, high in _pieces(rows):
        part = column[low:high].astype(np.int64)
        if packing.steps:
            ahead = int(part[-1])
            part[1:] = np.diff(part)
            part[0] -= last
            last = ahead
        short = (part >> packing.shift) - packing.base
        bad = np.flatnonzero((short < 0) | (short >= 1 << 8 * width) | (part & ((1 << packing.shift) - 1) != 0))
        count += len(bad)
        if count > rows // _MOST_EXCEPTIONS:
            return None
        places.append(bad + low)
        numbers.append(part[bad])
        if small is not None:
            short[bad] = 0
            small[low:high] = short
    columns = [np.concatenate(places).astype(_place(rows)), np.concatenate(numbers)]
    out = [one.view(np.uint8) for one in ([] if small is None else [small]) + columns]
    return Packing(width, packing.steps, packing.base, packing.shift, count), np.concatenate(out)
