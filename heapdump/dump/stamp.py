"""A name for the content of a dump file, so that what was found in it can be kept."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

_HEAD_BYTES = 1 << 16
_SAMPLES, _SAMPLE_BYTES = 16, 4096


def stamp_of(file: BinaryIO) -> str:
    """64 hex digits made of the file's size, time, first bytes (header and directory) and some bytes of each part.

    Taken of the opened file: what is put in its place later has another.
    """
    state = os.fstat(file.fileno())
    file.seek(0)
    found = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}\n".encode() + file.read(_HEAD_BYTES))
    for i in range(1, _SAMPLES):
        file.seek(state.st_size * i // _SAMPLES)
        found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()
