"""Named maxima for lists inside the dumped process; those for the file are in `dump/limits.py`."""

from __future__ import annotations

MAX_LIST_NODES = 1 << 20
"""Nodes of one linked list (segments, uncommitted ranges, large blocks)."""

MAX_HEAPS = 16_384
"""Heaps on one list: those behind it are named in a note and not looked at."""

MAX_GAPS = 1_000
"""Lines kept on what is missing of one heap in one part of the walk."""

MAX_FINDINGS = 10_000
"""Findings kept of one heap and one part of the walk."""
