"""The machine on which a command runs: memory that it leaves, and loops that are compiled once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from heapdump import system
from heapdump.available_memory import require_memory


@contextlib.contextmanager
def prepared(say: Callable[[str], None]) -> Iterator[None]:
    """Plans the memory of the command inside the `with` block. `say` gets lines about memory and compiling.

    Raises:
        MemoryError: there is too little memory to begin.
    """
    require_memory()
    system.give_large_memory_back()
    from heapdump.cache.store import array_folder
    from heapdump.kernels import announce_compiling, forget_announcing
    from heapdump.memory_plan import planned

    announce_compiling(say)
    try:
        with planned(say, array_folder):
            yield
    finally:
        forget_announcing()
