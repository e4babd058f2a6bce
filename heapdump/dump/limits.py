"""Named maxima: every count or size read from a file meets one of these before it sizes a loop or a list.

A count above its maximum, where the file really holds that many records, is a `HostileDump`; a count above what the
stream can hold is cut to what it holds, with a note.
"""

from __future__ import annotations

from heapdump.errors import HostileDump

MAX_STREAMS = 4096
"""Directory entries. dbghelp writes about 15, crashpad 12."""

MAX_MODULES = 65_536
MAX_UNLOADED_MODULES = 65_536
MAX_THREADS = 65_536
"""Entries of each of these lists."""

MAX_MEMORY_RANGES = 8_000_000
"""Memory ranges of both lists together: 64 GiB in single pages is 16 M, real full dumps have below 200,000."""

MAX_REGIONS = 8_000_000
"""MemoryInfo entries; the largest seen has 22,014."""

MAX_STRING_BYTES = 8192
"""One MINIDUMP_STRING: 4,096 characters; the paths of real modules have below 300."""

MAX_HANDLE_OPERATIONS = 65_536
"""Entries of the handle operation list; Application Verifier keeps some thousands."""

MAX_COMMENTS = 16
MAX_COMMENT_BYTES = 65_536
"""Comment streams of a dump, and the bytes of each."""

MAX_STRINGS_TOTAL_BYTES = 32 << 20
"""All strings of one dump together: many records may point at the same long string."""

MAX_STREAM_BYTES = 64 << 20
"""A small stream that is handed to the `minidump` package as a whole."""

MAX_CODEVIEW_BYTES = 4096
"""A CodeView record: 24 bytes and the path of the PDB file."""

MAX_CONTEXT_BYTES = 0x4D0
"""The fixed part of the largest CONTEXT (AMD64). Extended processor state follows it, which heapdump does not read."""

MAX_MEMORY_PER_FILE = 4
"""Bytes of all memory ranges / bytes of the file. Ranges that share bytes of the file make it more than 1; no writer
makes such ranges."""

MIN_EXPANSION_BYTES = 4 << 30
MAX_EXPANSION = 2000
"""A compressed file may unpack to MIN_EXPANSION_BYTES, or to MAX_EXPANSION times its own size if that is more."""

MIN_DISK_FREE_BYTES = 1 << 30
"""Unpacking stops before less than this is free on the disk that takes the temporary file."""

MAX_UNPACKER_BYTES = 256 << 20
"""Memory of an unpacker: dictionaries of xz and LZMA. `xz -9` needs 64 MiB."""

MAX_ZIP_DIRECTORY_BYTES = 4 << 20
"""The list of members of a zip file, some 50,000 of them; Python reads it as a whole."""

MAX_SKIPPED_BYTES = 4 << 30
"""Unpacked bytes before the dump in a cabinet, which must be unpacked to reach it."""


def require(name: str, value: int, maximum: int) -> None:
    """Raises HostileDump when `value` is above `maximum`."""
    if value > maximum:
        raise HostileDump(
            f"{name}: {value:,} is more than heapdump accepts ({maximum:,}); the file is damaged or was made to do harm"
        )
