"""Types of the arrays that kernels read and write: numpy arrays when compiled, memoryviews of them in plain Python."""

from __future__ import annotations

from typing import Protocol


class ArrayColumn(Protocol):
    """(n,) integers to read."""

    def __len__(self) -> int:
        """The number of integers."""

    def __getitem__(self, index: int, /) -> int:
        """Element `index`, 0 <= index < n."""


class Output(ArrayColumn, Protocol):
    """(n,) integers to read and write."""

    def __setitem__(self, index: int, value: int, /) -> None:
        """Element `index`, 0 <= index < n, becomes `value`."""


class Grid(Protocol):
    """(n, m) integers to read, one record a row."""

    def __len__(self) -> int:
        """The number of records."""

    def __getitem__(self, index: tuple[int, int], /) -> int:
        """Member `index[1]` of record `index[0]`."""


class OutputGrid(Grid, Protocol):
    """(n, m) integers to read and write, one record a row."""

    def __setitem__(self, index: tuple[int, int], value: int, /) -> None:
        """Member `index[1]` of record `index[0]` becomes `value`."""
