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
    """One number at the top of the page.

    Attributes:
        label: its name.
        text: the number, shortened.
        exact: the number in full.
        command: command that gives it.
        is_bad: True where it is a warning.
    """

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
    """A rectangle of the treemap.

    Attributes:
        name: of the memory.
        css: class of the style sheet that colours it.
        committed: committed bytes.
        size: committed and reserved bytes.
        command: words behind `heapdump`, without the dump.
        children: the parts of this memory.
        delta: change of the committed bytes since the older dump; None without one.
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
    """A class of memory in the legend of the treemap; numbers are bytes, None where they are not known.

    `size`: committed and reserved bytes; `private`: committed private bytes; `regions`: their number; `largest`: bytes
    of the largest region; `reason`: why numbers are not known, else "". `css`, `delta`: as in `Box`.
    """

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
    """Neighbouring cells of a strip that look the same. `x`: index of the first; `width`: number of cells."""

    x: int
    width: int
    css: str
    title: str


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of cells.

    Attributes:
        label: first address.
        size: bytes that the row spans, as text.
        before: line on what is left out above it; "" for nothing.
        cells: number of cells.
        runs: the cells, ascending.
    """

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
    """A block of the dominator tree.

    Attributes:
        address: of its user data, as text.
        type: its type.
        size: requested bytes.
        retained: bytes that it holds, its own included.
        blocks: number of blocks that it holds, itself included.
        children: the largest blocks that it directly dominates.
        hidden: number of such blocks that are left out.
    """

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
    """Bytes of one type that one holder holds. `holder`, `type`: indices in the lists of `Flow`."""

    holder: int
    type: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Flow:
    """The holders, the types that they hold, and bands between them.

    `by_holder`, `by_type`: commands that list all holders and all types.
    """

    holders: tuple[FlowEnd, ...]
    types: tuple[FlowEnd, ...]
    bands: tuple[Band, ...]
    by_holder: str
    by_type: str


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A group of blocks. `old`, `new`: its requested bytes in the older and in the newer dump."""

    name: str
    old: int
    new: int

    @property
    def most(self) -> int:
        """The larger of the two."""
        return max(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Part:
    """An answer of a command inside a section.

    Attributes:
        title: its heading.
        command: command that gives it.
        items: tables and lines.
        gaps: lines on what is missing.
        row_command: row → the command about it, "" where there is none; None where no row has one.
        is_folded: True where the reader opens it.
        folds_stacks: True where the stacks in it are folded together.
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
    """A section of the page.

    Attributes:
        id: anchor in the page.
        title: its heading.
        lead: one sentence below the heading; "" for none.
        figure: name of the template's figure; "" for none.
        answers: those below the figure.
        before: those above the figure.
    """

    id: str
    title: str
    lead: str = ""
    figure: str = ""
    answers: Sequence[Part] = ()
    before: Sequence[Part] = ()


@dataclass(frozen=True, slots=True)
class ReportContent:
    """The whole page. `dump`: as it stands in commands; `graph_by`: key of the groups in the icicle graph."""

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
