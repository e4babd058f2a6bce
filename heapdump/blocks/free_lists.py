"""The free lists of one heap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding


@dataclass(frozen=True, slots=True)
class FreeLists:
    """The entries on the free lists of one heap, in list order.

    Attributes:
        entry: (n,) int64 addresses of the entries.
        size: (n,) int64 occupied bytes.
        is_complete: False where a list is broken, so that entries may be missing.
        findings: the broken links.
    """

    entry: NDArray[np.int64]
    size: NDArray[np.int64]
    is_complete: bool
    findings: tuple[Finding, ...]
