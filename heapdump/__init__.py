"""heapdump answers questions about a Windows user-mode crash dump.

Where did the memory go, who allocated it, who holds it, and what broke the heap? The ten names in `__all__` are the
public interface of the library (docs/api.md). Each is loaded when it is first used: `import heapdump` loads neither
numpy nor rich. Everything else in the package may change without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heapdump.blocks.findings import Finding
    from heapdump.blocks.heap import Heap
    from heapdump.blocks.table import Block, BlockTable
    from heapdump.errors import HeapdumpError
    from heapdump.process.model import Process
    from heapdump.snapshot import Snapshot, open_dump
    from heapdump.trust import Trust

__all__ = [
    "Block",
    "BlockTable",
    "Finding",
    "Heap",
    "HeapdumpError",
    "Process",
    "Snapshot",
    "Trust",
    "__version__",
    "open_dump",
]

__version__: str
"""Version of heapdump, as the JSON envelope prints it under `tool`."""

_HOMES = {
    "Block": "blocks.table",
    "BlockTable": "blocks.table",
    "Finding": "blocks.findings",
    "Heap": "blocks.heap",
    "HeapdumpError": "errors",
    "Process": "process.model",
    "Snapshot": "snapshot",
    "Trust": "trust",
    "open_dump": "snapshot",
}
"""Public name → the module of this package that defines it."""


def __getattr__(name: str) -> Any:  # noqa: ANN401  # classes, a function and a string
    """Loads the module of a public name when the name is first used.

    Raises:
        AttributeError: there is no such public name.
    """
    if name == "__version__":
        from heapdump.snapshot import VERSION

        return VERSION
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
