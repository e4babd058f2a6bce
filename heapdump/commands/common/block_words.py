"""Blocks in words, for the rows of a table: their type, and who allocated them."""

from __future__ import annotations

from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from heapdump.commands.common.graph_overview import group_rows
from heapdump.commands.common.leak_groups import common_module, short_key
from heapdump.render import text
from heapdump.render.view import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from heapdump.analyses.allocated.group_key import GroupKey
    from heapdump.blocks.kind import BlockKind
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

_TEXT_BYTES = 48
_KIND_WORDS = {"virtual": "large"}
_SHORT = {"only allocator frames": "allocator only"}


class BlockWords:
    """Types and callers of blocks, in words; made for all rows at once when the first is asked for."""

    def __init__(self, request: Request, snapshot: Snapshot, rows: Iterable[int]) -> None:
        """`rows`: of the block table, those that a table shows."""
        self._request, self._snapshot, self._rows = request, snapshot, sorted(set(rows))

    def content(self, row: int) -> str:
        """A class, a kind of content, or the beginning of a text; "" for a free block."""
        return self._contents.get(row, "")

    def caller(self, row: int) -> str:
        """The first frame that does not only pass the allocation on; "" where no stack is recorded."""
        return self._callers.get(row, "")

    def outer(self, row: int) -> str:
        """The frames that called it, as far as the key of its group names them; "" where there are none."""
        return "" if self.caller(row) in _SHORT.values() else self._outer.get(row, "")

    @property
    def has_callers(self) -> bool:
        """True where a block has a recorded stack."""
        return bool(self._callers)

    @cached_property
    def _contents(self) -> dict[int, str]:
        from heapdump.analyses.allocated.group_key import GroupKey

        table = self._snapshot.walk.table
        labels = self._labels(GroupKey.TYPE, [row for row in self._rows if table.is_busy[row]])
        return {row: self._text(row, label) if label.startswith("text ") else label for row, label in labels.items()}

    @cached_property
    def _callers(self) -> dict[int, str]:
        from heapdump.analyses.allocated.group_key import GroupKey

        if not self._snapshot.stacks.are_recorded:
            return {}
        labels = self._labels(GroupKey.CALLER, self._rows)
        named = {row: label for row, label in labels.items() if label != "no stack recorded"}
        module = common_module(list(named.values()))
        return {row: _SHORT.get(label) or short_key(label, module) for row, label in named.items()}

    @cached_property
    def _outer(self) -> dict[int, str]:
        from heapdump.analyses.allocated.group_key import GroupKey

        if not self._snapshot.stacks.are_recorded:
            return {}
        keys = self._labels(GroupKey.STACK, self._rows)
        module = common_module(list(keys.values()))
        return {row: short_key(key, module).partition(" ← ")[2] for row, key in keys.items()}

    def _labels(self, by: GroupKey, rows: list[int]) -> dict[int, str]:
        """Row → the key of its group."""
        import numpy as np

        if not rows:
            return {}
        found = group_rows(self._request, self._snapshot, np.array(rows, np.int64), by)
        keys = {one.group.value: one.key for one in found.groups}
        return {row: keys[value] for row, value in zip(found.rows.tolist(), found.values.tolist(), strict=True)}

    def _text(self, row: int, label: str) -> str:
        """The first characters of a text, in quotes."""
        block = self._snapshot.walk.table.block(row)
        data = self._snapshot.process.space.try_read(block.address, min(block.size, _TEXT_BYTES)) or b""
        if "UTF-16" in label:
            return f'L"{text.preview(data[::2].partition(bytes(1))[0])}"'
        return f'"{text.preview(data.partition(bytes(1))[0])}"'


def kind_words(kind: BlockKind) -> str:
    """The kind in a sentence: `large` for what the JSON calls `virtual`."""
    return _KIND_WORDS.get(kind.word, kind.word)


def word_columns(
    words: BlockWords, row: Callable[[Any], int] = attrgetter("row"), *, with_content: bool = True
) -> tuple[Column[Any], ...]:
    """The columns with the type of a block and, with stacks, who allocated it. `row`: shown row → table row."""
    content: Column[Any] = Column(
        "Content",
        lambda b: words.content(row(b)),
        "its class, or what its first bytes look like (a guess)",
        flexible=28,
        rank=int(words.has_callers),
    )
    caller: Column[Any] = Column(
        "Allocated by",
        lambda b: words.caller(row(b)),
        "first frame of its stack outside allocator modules",
        flexible=24,
        wraps=True,
    )
    outer: Column[Any] = Column(
        "Called by", lambda b: words.outer(row(b)), "the frames behind it", rank=7, flexible=24, style="dim"
    )
    return (*((content,) if with_content else ()), *((caller, outer) if words.has_callers else ()))
