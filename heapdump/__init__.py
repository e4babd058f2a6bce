"""heapdump: where the memory went, who holds it, and what broke the heap, from a Windows user-mode crash dump."""

from __future__ import annotations

from heapdump.snapshot import VERSION, Snapshot, open_dump

__all__ = ["Snapshot", "__version__", "open_dump"]
__version__ = VERSION
