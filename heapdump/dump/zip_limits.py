"""Checks of zip files before Python's reader allocates the memory that a file asks for.

Source: PKWARE APPNOTE.TXT sections 4.3.7 (local header), 4.3.14 to 16 (end records), 5.8 (LZMA).
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import IO

from heapdump.dump import limits

_END, _END64, _LOCATOR64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_END_BYTES, _LOCATOR64_BYTES, _END64_BYTES, _LONGEST_COMMENT = 22, 20, 56, 0xFFFF
_LOCAL_BYTES = 30


def require_small_directory(path: Path, file: IO[bytes]) -> None:
    """Makes sure that the list of members is not longer than `limits.MAX_ZIP_DIRECTORY_BYTES`.

    Raises:
        HostileDump: it is longer.
    """
    size = file.seek(0, io.SEEK_END)
    start = max(0, size - _END_BYTES - _LONGEST_COMMENT - _LOCATOR64_BYTES)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END)
    found = [struct.unpack_from("<I", tail, at + 12)[0]] if 0 <= at <= len(tail) - _END_BYTES else []
    locator = at - _LOCATOR64_BYTES
    if found and locator >= 0 and tail.startswith(_LOCATOR64, locator):
        found += _directory64(file, struct.unpack_from("<Q", tail, locator + 8)[0], size)
    if found[1:] and found[0] == 0xFFFFFFFF:
        found = found[1:]
    for directory in found:
        limits.require(f"{path}: bytes of the zip file's directory", directory, limits.MAX_ZIP_DIRECTORY_BYTES)
    file.seek(0)


def _directory64(file: IO[bytes], at: int, size: int) -> list[int]:
    """[bytes of the directory by the end record of ZIP64]; empty without such a record."""
    if at > size - _END64_BYTES:
        return []
    file.seek(at)
    record = file.read(_END64_BYTES)
    return [struct.unpack_from("<Q", record, 40)[0]] if record.startswith(_END64) else []


def require_small_dictionary(path: Path, file: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Makes sure that unpacking an LZMA member needs no more than `limits.MAX_UNPACKER_BYTES` of memory.

    Raises:
        HostileDump: it needs more.
    """
    if member.compress_type != zipfile.ZIP_LZMA:
        return
    file.seek(member.header_offset)
    local = file.read(_LOCAL_BYTES)
    if len(local) == _LOCAL_BYTES:
        file.seek(sum(struct.unpack_from("<HH", local, 26)), io.SEEK_CUR)
        head = file.read(9)  # version (2), size of the properties (2), properties: lc, lp, pb (1), dictionary (4)
        if len(head) == 9:
            size = struct.unpack_from("<I", head, 5)[0]
            limits.require(f"{path}: bytes of the LZMA dictionary", size, limits.MAX_UNPACKER_BYTES)
