"""Formats of compressed data.

Sources: APPNOTE.TXT of zip, RFC 1950 and 1952, RFC 8878 (zstd), the formats of xz, lz4, bzip2, 7z, RAR, CAB.
"""

from __future__ import annotations

import zlib

from heapdump.analyses.contents.first_bytes import FirstBytes, Format, Mask, all_of, one_of, within

_METHODS = (0, 8, 9, 12, 14, 93, 95, 98, 99)
_MOST_NAME, _NEWEST_ZIP = 1024, 63
_FEWEST_OUT = 128
"""Bytes that a piece of a zlib stream must give."""


def _is_zip(blocks: FirstBytes) -> Mask:
    """Of a file in the archive: version, method and length of the name exist."""
    return all_of(
        within(blocks.little_endian(4, 1), 0, _NEWEST_ZIP),
        one_of(blocks.little_endian(8, 2), *_METHODS),
        within(blocks.little_endian(26, 2), 1, _MOST_NAME),
        (blocks.size >= 30),
    )


def _is_gzip(blocks: FirstBytes) -> Mask:
    """Flags, extra flags and system exist, and the first block of deflate has a type."""
    flags, system = blocks.little_endian(3, 1), blocks.little_endian(9, 1)
    is_typed = (flags & 0x1C != 0) | (blocks.little_endian(10, 1) & 6 != 6)
    return all_of(
        (blocks.size >= 18),
        (flags <= 0x1F),
        one_of(blocks.little_endian(8, 1), 0, 2, 4),
        ((system <= 13) | (system == 255)),
        is_typed,
    )


def _is_zlib(data: bytes) -> bool:
    """The stream gives its bytes and its checksum, or so much of it as was read gives bytes without a fault.

    One that gives less than `_FEWEST_OUT` bytes is not named: random bytes may be such a stream.
    """
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, 1 << 16)
    except zlib.error:
        return False
    return len(out) >= _FEWEST_OUT and (stream.eof or len(out) >= len(data) // 2)


def _is_zstd(blocks: FirstBytes) -> Mask:
    """The reserved bit of the frame's header is 0, and the first block has a type where its place is fixed."""
    descriptor = blocks.little_endian(4, 1)
    good: Mask = (descriptor & 0x08 == 0) & (blocks.size >= 9)
    return good


def _is_lz4(blocks: FirstBytes) -> Mask:
    """Version 1, reserved bits 0, a block size that exists."""
    good: Mask = (
        (blocks.little_endian(4, 1) & 0xC2 == 0x40)
        & (blocks.little_endian(5, 1) & 0x8F == 0)
        & (blocks.little_endian(5, 1) >> 4 >= 4)
    )
    return good


def _is_cab(blocks: FirstBytes) -> Mask:
    good: Mask = (blocks.little_endian(8, 4) >= 36) & (blocks.little_endian(24, 2) == 0x0103)
    return good


FORMATS = (
    Format("zip archive", b"PK\3\4", _is_zip),
    Format("gzip data", b"\x1f\x8b\x08", _is_gzip),
    Format("zlib data", b"\x78\x01", proof=_is_zlib),
    Format("zlib data", b"\x78\x5e", proof=_is_zlib),
    Format("zlib data", b"\x78\x9c", proof=_is_zlib),
    Format("zlib data", b"\x78\xda", proof=_is_zlib),
    Format("zstd data", b"\x28\xb5\x2f\xfd", _is_zstd),
    Format("lz4 data", b"\x04\x22\x4d\x18", _is_lz4),
    Format("xz data", b"\xfd7zXZ\0\0"),
    *(Format("bzip2 data", b"BZh%d1AY&SY" % level) for level in range(1, 10)),
    Format("7z archive", b"7z\xbc\xaf\x27\x1c\0"),
    Format("RAR archive", b"Rar!\x1a\x07"),
    Format("CAB archive", b"MSCF\0\0\0\0", _is_cab),
    Format("snappy data", b"\xff\x06\0\0sNaPpY"),
)
