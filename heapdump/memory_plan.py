"""What a walk, a graph or a dominator tree will need, compared with what the machine has, before it is made.

In: counts. Out: a line for the user where memory is short, and arrays in files where it does not suffice.
Room: ground floor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from heapdump import large_arrays
from heapdump.available_memory import available_memory
from heapdump.wording import size

WALK_BYTES, GRAPH_BYTES, TREE_BYTES = 75, 65, 40
"""Bytes of memory at the peak for each block, measured: the walk with every command that makes no graph; the pointer
graph with what it tells; the dominator tree. With four pointers a block: graph and tree take 50 and 25 with one."""

_LITTLE_BYTES = 32 << 20
"""Less than this is not worth a line."""

_OTHER_BYTES = 160 << 20
"""Everything that does not grow with the blocks: libraries, and pieces of the dump."""


class _CommandPlan:
    """The memory of one command."""

    def __init__(self, say: Callable[[str], None], folder: Callable[[], Path]) -> None:
        self._say, self._folder = say, folder
        self._uses_files = False

    def before(self, what: str, need_bytes: int) -> None:
        """See `before`."""
        have = available_memory()
        need = need_bytes + _OTHER_BYTES
        if have is None or need <= have.bytes or self._uses_files or need_bytes < _LITTLE_BYTES:
            return
        short = f"{what} may need {size(need)} of memory, {have.whose} leaves {size(have.bytes)}"
        if have.counts_files:
            self._say(f"{short}: if that does not suffice, raise the limit")
            return
        folder = self._folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            self._say(f"{short}, and {folder} cannot be written")
            return
        large_arrays.use_files(folder)
        self._uses_files = True
        self._say(f"{short}: large arrays lie in files in {folder} meanwhile")


_PLANS: list[_CommandPlan] = []


@contextlib.contextmanager
def planned(say: Callable[[str], None], folder: Callable[[], Path]) -> Iterator[None]:
    """Memory is planned inside: `say` gets lines for the user, `folder()` is where large arrays may lie in files."""
    if _PLANS:
        yield
        return
    _PLANS.append(_CommandPlan(say, folder))
    try:
        yield
    finally:
        _PLANS.clear()
        large_arrays.use_files(None)


def before(what: str, need_bytes: int) -> None:
    """Prepares for `what`, which will take `need_bytes`: says where that is short, and moves large arrays to files."""
    for plan in _PLANS:
        plan.before(what, need_bytes)
