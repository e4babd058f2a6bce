"""Reads one file of a cabinet as a stream, block by block, with 64 KiB of memory.

Blocks are stored, or MSZIP: deflate with the 32 KiB before as dictionary. LZX, Quantum, and cabinets in several parts
are refused. Source: Microsoft Cabinet Format ([MS-CAB]) sections 2.1 to 2.4, MSZIP ([MS-MCI]).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from heapdump.dump import limits
from heapdump.errors import HostileDump

_HEADER = struct.Struct("<4s4xI4xI4xBBHHHHH")
_FOLDER, _FILE, _BLOCK = struct.Struct("<IHH"), struct.Struct("<IIHHHH"), struct.Struct("<IHH")
_PREVIOUS, _NEXT, _RESERVE = 1, 2, 4
_LONGEST_NAME = 257
_COMPRESSIONS = {0: "stored", 1: "MSZIP", 2: "Quantum", 3: "LZX"}


class DamagedCabinet(Exception):
    """The cabinet is damaged, or of a kind that heapdump does not read; the message says which."""


@dataclass(frozen=True, slots=True)
class _CabinetFile:
    name: str
    size: int
    offset: int
    folder: int


@dataclass(frozen=True, slots=True)
class _CabinetFolder:
    start: int
    compression: int


@dataclass(frozen=True, slots=True)
class _CabinetContents:
    folders: list[_CabinetFolder]
    members: list[_CabinetFile]
    block_reserve: int


def open_member(file: BinaryIO, choose: Callable[[list[str]], str]) -> io.RawIOBase:
    """The bytes of one member of a cabinet, as a stream.

    Args:
        file: the opened cabinet.
        choose: names of all members → the name of the member to read.

    Raises:
        DamagedCabinet: the tables are damaged, or heapdump does not read the compression of the member.
    """
    contents = _contents(file)
    name = choose([member.name for member in contents.members])
    member = next(one for one in contents.members if one.name == name)
    if member.folder >= len(contents.folders):
        raise DamagedCabinet(f"{name} lies in no folder of the cabinet")
    folder = contents.folders[member.folder]
    if folder.compression > 1:
        kind = _COMPRESSIONS.get(folder.compression, f"compression {folder.compression}")
        raise DamagedCabinet(f"it is packed with {kind}, which heapdump does not read")
    return _MemberStream(file, member, folder, contents.block_reserve)


def open_only_member(file: BinaryIO) -> io.RawIOBase:
    """The bytes of the only member of a cabinet, as symbol stores make them.

    Raises:
        DamagedCabinet: as of `open_member`; also where the file is no cabinet, or has several members.
    """
    if _exactly(file, 0, 4) != b"MSCF":
        raise DamagedCabinet("it is no cabinet")
    members = _contents(file).members
    if len(members) != 1 or members[0].offset:
        raise DamagedCabinet(f"it holds {len(members)} files, not one at its start")
    return open_member(file, lambda names: names[0])


def _contents(file: BinaryIO) -> _CabinetContents:
    _, size, files, _, major, folder_count, file_count, flags, _, _ = _HEADER.unpack(_exactly(file, 0, _HEADER.size))
    if major != 1:
        raise DamagedCabinet(f"its version {major} is not known")
    if flags & (_PREVIOUS | _NEXT):
        raise DamagedCabinet("it is one of several parts")
    at, folder_reserve, block_reserve = _HEADER.size, 0, 0
    if flags & _RESERVE:
        own, folder_reserve, block_reserve = struct.unpack("<HBB", _exactly(file, at, 4))
        at += 4 + own
    folders = []
    for _ in range(folder_count):
        start, _, compression = _FOLDER.unpack(_exactly(file, at, _FOLDER.size))
        folders.append(_CabinetFolder(start, compression & 0xF))
        at += _FOLDER.size + folder_reserve
    if size > file.seek(0, io.SEEK_END):
        raise DamagedCabinet("the file was cut")
    return _CabinetContents(folders, _members(file, files, file_count), block_reserve)


def _members(file: BinaryIO, at: int, count: int) -> list[_CabinetFile]:
    members = []
    for _ in range(count):
        size, offset, folder, *_ = _FILE.unpack(_exactly(file, at, _FILE.size))
        name, end, _ = file.read(_LONGEST_NAME).partition(b"\0")
        if not end:
            raise DamagedCabinet("a name does not end")
        members.append(_CabinetFile(name.decode("utf-8", "backslashreplace"), size, offset, folder))
        at += _FILE.size + len(name) + 1
    return members


class _MemberStream(io.RawIOBase):
    """The bytes of one member, unpacked while they are read."""

    def __init__(self, file: BinaryIO, member: _CabinetFile, folder: _CabinetFolder, reserve: int) -> None:
        """`reserve`: bytes behind the header of each block that belong to the application."""
        self._file, self._folder, self._reserve = file, folder, reserve
        self._at = folder.start
        self._skip, self._left = member.offset, member.size
        self._before, self._ready = b"", b""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; b"" at the end.

        Raises:
            DamagedCabinet: a block is damaged.
            HostileDump: more bytes precede the member in its folder than heapdump unpacks.
        """
        while not self._ready and self._left:
            block = self._block()
            skipped = min(self._skip, len(block))
            self._skip -= skipped
            self._ready = block[skipped : skipped + self._left]
            self._left -= len(self._ready)
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    def _block(self) -> bytes:
        if self._skip > limits.MAX_SKIPPED_BYTES:
            raise HostileDump(
                f"{self._skip:,} bytes lie before the dump in the cabinet, more than heapdump unpacks in vain "
                f"({limits.MAX_SKIPPED_BYTES:,}); unpack it with `expand` or `cabextract`"
            )
        header = _exactly(self._file, self._at, _BLOCK.size + self._reserve)
        checksum, packed_bytes, unpacked_bytes = _BLOCK.unpack_from(header)
        data = _exactly(self._file, self._at + len(header), packed_bytes)
        if checksum and checksum != _checksum(header[4:], _checksum(data, 0)):
            raise DamagedCabinet(f"the block at {self._at:#x} does not verify")
        block = data if self._folder.compression == 0 else self._inflate(data, unpacked_bytes)
        if not block or len(block) != unpacked_bytes:
            raise DamagedCabinet(f"the block at {self._at:#x} has another size than it says")
        self._at += len(header) + packed_bytes
        return block

    def _inflate(self, data: bytes, most: int) -> bytes:
        if data[:2] != b"CK":
            raise DamagedCabinet(f"the block at {self._at:#x} is not MSZIP")
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS, zdict=self._before)
        try:
            self._before = unpacker.decompress(data[2:], most + 1)
        except zlib.error as error:
            raise DamagedCabinet(f"the block at {self._at:#x} cannot be unpacked: {error}") from error
        return self._before


def _exactly(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise DamagedCabinet("the file was cut")
    return data


def _checksum(data: bytes, before: int) -> int:
    """XOR of the little-endian words; the last 1 to 3 bytes count as a big-endian number. [MS-CAB] section 3.1."""
    aligned = len(data) // 4 * 4
    words = np.frombuffer(data[:aligned], "<u4")
    return before ^ int(np.bitwise_xor.reduce(words, initial=0)) ^ int.from_bytes(data[aligned:], "big")
