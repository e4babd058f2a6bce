"""Named maxima for lists inside the dumped process; those for the file are in `dump/limits.py`."""

from __future__ import annotations

MAX_LIST_NODES = 1 << 20
"""Nodes of one linked list (segments, uncommitted ranges, large blocks)."""

MAX_HEAPS = 16_384
"""Heaps on one list; the number of further ones is in a note."""

MAX_GAPS = 1_000
"""Gaps of one heap that one part of the walk records, one line each; further ones are one line together."""

MAX_FINDINGS = 10_000
"""Findings of one heap that one part of the walk records; a gap says that there are more."""
