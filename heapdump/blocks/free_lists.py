"""The free lists of one heap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding


@dataclass(frozen=True, slots=True)
class FreeLists:
    """Linked entries in list order. `entry`: addresses, `size`: occupied bytes; both (n,) int64.

    `is_complete` is False where a list is broken; `findings` are the broken links.
    """

    entry: NDArray[np.int64]
    size: NDArray[np.int64]
    is_complete: bool
    findings: tuple[Finding, ...]
