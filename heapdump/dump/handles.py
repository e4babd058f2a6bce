"""The number of open handles: MINIDUMP_HANDLE_DATA_STREAM (stream 12) of minidumpapiset.h."""

from __future__ import annotations

import struct
from mmap import mmap

from heapdump.dump.directory import Directory, StreamType

_HEADER = struct.Struct("<III")
"""Size of the header, size of a descriptor, number of descriptors."""


def handle_count(data: mmap, directory: Directory) -> int | None:
    """The number of descriptors; None without the stream, or where the stream is too short for that many."""
    stream = directory.first(StreamType.HANDLE_DATA)
    if stream is None or stream.present < _HEADER.size:
        return None
    head, each, count = _HEADER.unpack_from(data, stream.offset)
    return int(count) if each and head + each * count <= stream.size else None
