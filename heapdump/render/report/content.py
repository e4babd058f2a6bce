"""The content of the HTML report: plain values, in the order in which the page shows them.

Text of the dump stands in these records as it is; the template escapes it, and scripts only set it as text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from heapdump.render.view import PageItem


@dataclass(frozen=True, slots=True)
class Tile:
    """One number at the top of the page. `text`: short; `exact`: in full; `command`: gives it; `is_bad`: a warning."""

    label: str
    text: str
    exact: str
    command: str
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class ReportItem:
    """A line of the reconciliation: bytes under one item, and their share of all of them, 0 to 100."""

    name: str
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the treemap. `size`: committed and reserved bytes; `css`: the class that colours it.

    `command`: the words behind `heapdump`, the dump left out. `delta`: change of the committed bytes since the older
    dump, None where there is none.
    """

    name: str
    css: str
    committed: int
    size: int
    command: tuple[str, ...]
    children: tuple[Box, ...] = ()
    delta: int | None = None


@dataclass(frozen=True, slots=True)
class LegendRow:
    """A class of memory; None: not known, and `reason` says why. `delta`: as in `Box`."""

    name: str
    css: str
    size: int | None
    committed: int | None
    private: int | None
    regions: int | None
    largest: int | None
    command: str
    reason: str = ""
    delta: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring cells of a strip that look the same."""

    x: int
    width: int
    css: str
    title: str


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of cells. `label`: where it begins; `size`: how much it spans; `before`: what was left out above it."""

    label: str
    size: str
    before: str
    cells: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A class of sizes in a histogram: shares of the highest one, 0 to 100."""

    label: str
    busy: float
    free: float
    title: str


@dataclass(frozen=True, slots=True)
class HeapPicture:
    """The segments of a heap as strips, and its blocks by size. `hidden`: a line on what is left out, or ""."""

    name: str
    detail: str
    command: str
    strips: tuple[Strip, ...]
    hidden: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class ReportFrame:
    """A box of the icicle graph: bytes and blocks of everything below it, and its change since the older dump."""

    name: str
    bytes: int
    blocks: int
    children: tuple[ReportFrame, ...] = ()
    delta: int | None = None


@dataclass(frozen=True, slots=True)
class ReportHolder:
    """A block of the dominator tree. `retained`: bytes; `hidden`: blocks below it that are left out."""

    address: str
    type: str
    size: int
    retained: int
    blocks: int
    children: tuple[ReportHolder, ...] = ()
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """A holder or a type of the figure that ties them together."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Band:
    """Bytes of one type that one holder holds; both by their place in the figure's lists."""

    holder: int
    type: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Who holds what. `by_holder`, `by_type`: the commands with all holders and all types."""

    holders: tuple[FlowEnd, ...]
    types: tuple[FlowEnd, ...]
    bands: tuple[Band, ...]
    by_holder: str
    by_type: str


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A group of blocks in the older and in the newer dump, bytes."""

    name: str
    old: int
    new: int

    @property
    def most(self) -> int:
        """The larger of the two."""
        return max(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Part:
    """An answer of a command inside a section. `row_command`: the command about a row, "" where there is none.

    `is_folded`: the reader opens it; `folds_stacks`: the stacks in it are folded together.
    """

    title: str
    command: str
    items: Sequence[PageItem]
    gaps: Sequence[str] = ()
    row_command: Callable[[Any], str] | None = None
    is_folded: bool = False
    folds_stacks: bool = False


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A section of the page. `figure`: the word that the template knows it by; `lead`: one sentence, or "".

    `before`: parts above the figure; `parts`: those below.
    """

    id: str
    title: str
    lead: str = ""
    figure: str = ""
    parts: Sequence[Part] = ()
    before: Sequence[Part] = ()


@dataclass(frozen=True, slots=True)
class ReportContent:
    """The whole page. `dump`: as it stands in commands; `graph_by`: what the icicle graph divides by."""

    title: str
    subtitle: str
    dump: str
    command: str
    version: str
    tiles: Sequence[Tile]
    sections: Sequence[ReportSection]
    memory: Box
    legend: Sequence[LegendRow]
    items: Sequence[ReportItem] = ()
    strips: Sequence[Strip] = ()
    heaps: Sequence[HeapPicture] = ()
    graph: ReportFrame | None = None
    graph_by: str = ""
    holders: Sequence[ReportHolder] = ()
    retained: int = 0
    flow: Flow | None = None
    changes: Sequence[GroupChange] = ()
    is_whole: bool = True
    old: str = ""
