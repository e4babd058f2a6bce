"""Finished answers as text, the way they are kept beside the walk: what a second question need not find again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]


def to_columns(value: dict[str, Any]) -> Columns:
    """What JSON can hold, as columns of an index."""
    return {"text": np.frombuffer(json.dumps(value).encode(), np.uint8)}


def of_columns(columns: Columns) -> dict[str, Any]:
    """The value of kept columns."""
    value: dict[str, Any] = json.loads(columns["text"].tobytes())
    return value
