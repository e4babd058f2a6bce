"""Makes a name for the content of a dump file, by which the index finds the walk and the answers of a dump."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

_HEAD_BYTES = 1 << 16
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_PIECE = 4 << 20


def stamp_of(file: BinaryIO, *, all_bytes: bool = False) -> str:
    """SHA-256, as 64 hex digits, of the file's size, its time of change, and samples of its bytes.

    Samples are the first 64 KiB (header and directory) and 4 KiB at each 1/64 of the file. They are read from the
    opened file, so a file that replaces it later has another stamp. `all_bytes`: take all bytes instead of samples, as
    of a file that is no longer than they are.
    """
    state = os.fstat(file.fileno())
    all_bytes = all_bytes or state.st_size <= _HEAD_BYTES + _SAMPLES * _SAMPLE_BYTES
    file.seek(0)
    found = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}\n".encode() + file.read(_HEAD_BYTES))
    while all_bytes and (piece := file.read(_PIECE)):
        found.update(piece)
    for i in range(1, 0 if all_bytes else _SAMPLES):
        file.seek(state.st_size * i // _SAMPLES)
        found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()
