"""Named maxima for lists inside the dumped process; those for the file are in `dump/limits.py`."""

from __future__ import annotations

MAX_LIST_NODES = 1 << 20
"""Nodes of one linked list (segments, uncommitted ranges, large blocks)."""

MAX_HEAPS = 16_384
"""Heaps on one heap list; a note says how many more there are."""

MAX_GAPS = 1_000
"""Sentences about damaged places of one heap that its walk records, and as many others; a sentence says where there are
more."""

MAX_FINDINGS = 10_000
"""Findings of one heap that its walk records, and its check; a gap says that there are more."""
