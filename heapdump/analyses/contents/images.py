"""Formats of images and bitmaps.

Sources: PNG (ISO 15948), JPEG (ITU T.81, JFIF, Exif), GIF89a, wingdi.h, TIFF 6.0, WebP.
"""

from __future__ import annotations

import struct

import numpy as np

from heapdump.analyses.contents.first_bytes import FirstBytes, Format, Mask, all_of, one_of, within

_MOST_PIXELS = 1 << 16
"""Of one side of a bitmap."""

_DIB_HEADERS = (40, 52, 56, 64, 108, 124)
_DEPTHS = (1, 4, 8, 16, 24, 32)
_MOST_FIELDS, _MOST_FIELD_TYPE = 512, 13
_PNG_COLORS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGBA"}


def _is_png(blocks: FirstBytes) -> Mask:
    """The first chunk is IHDR: sides, bit depth and colour type exist."""
    return all_of(
        blocks.is_at(8, b"\0\0\0\rIHDR"),
        within(blocks.big_endian(16, 4), 1, 1 << 31),
        within(blocks.big_endian(20, 4), 1, 1 << 31),
        one_of(blocks.little_endian(24, 1), 1, 2, 4, 8, 16),
        one_of(blocks.little_endian(25, 1), *_PNG_COLORS),
        (blocks.little_endian(26, 2) == 0),
    )


def _png_detail(data: bytes, _: int) -> str:
    width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
    return f"{width:,} × {height:,}, {depth} bits, {_PNG_COLORS.get(color, '')}"


def _is_jpeg(blocks: FirstBytes) -> Mask:
    """The first segment has a known head, and another segment or the end of the block follows it."""
    marker, length = blocks.little_endian(3, 1), blocks.big_endian(4, 2)
    known = (
        ((marker == 0xE0) & (blocks.is_at(6, b"JFIF\0") | blocks.is_at(6, b"JFXX\0")))
        | ((marker == 0xE1) & (blocks.is_at(6, b"Exif\0\0") | blocks.is_at(6, b"http:")))
        | ((marker == 0xE2) & blocks.is_at(6, b"ICC_PROFILE\0"))
        | ((marker == 0xEE) & blocks.is_at(6, b"Adobe"))
        | ((marker == 0xDB) & one_of(length, 67, 132, 197) & within(blocks.little_endian(6, 1), 0, 3))
    )
    behind = blocks.further(length + 4, 1)
    good: Mask = known & (length > 2) & ((behind == 0xFF) | (length + 5 > blocks.size))
    return good


def _is_gif(blocks: FirstBytes) -> Mask:
    good: Mask = (blocks.little_endian(6, 2) > 0) & (blocks.little_endian(8, 2) > 0)
    return good


def _gif_detail(data: bytes, _: int) -> str:
    width, height = struct.unpack_from("<HH", data, 6)
    return f"{width:,} × {height:,}"


def _is_bmp(blocks: FirstBytes) -> Mask:
    """The file's size and the offset of the pixels fit; the header's size, planes and depth exist."""
    size, offset = blocks.little_endian(2, 4), blocks.little_endian(10, 4)
    return all_of(
        (blocks.little_endian(6, 4) == 0),
        (size <= blocks.size),
        (offset >= 54),
        (offset <= size),
        one_of(blocks.little_endian(14, 4), *_DIB_HEADERS),
        (blocks.little_endian(26, 2) == 1),
        one_of(blocks.little_endian(28, 2), *_DEPTHS),
    )


def _is_dib(blocks: FirstBytes) -> Mask:
    """BITMAPINFOHEADER: the pixels that it describes have room in the block behind it."""
    width, height = _signed(blocks, 4), np.abs(_signed(blocks, 8))
    depth, compression, stored = blocks.little_endian(14, 2), blocks.little_endian(16, 4), blocks.little_endian(20, 4)
    stride = (width * depth + 31) // 32 * 4
    wanted = np.where(compression == 0, stride * height, stored)
    return all_of(
        within(width, 1, _MOST_PIXELS),
        within(height, 1, _MOST_PIXELS),
        (blocks.little_endian(12, 2) == 1),
        one_of(depth, *_DEPTHS),
        within(compression, 0, 5),
        ((stored == 0) | (stored >= np.where(compression == 0, stride * height, 1))),
        (wanted > 0),
        (40 + wanted <= blocks.size),
    )


def _signed(blocks: FirstBytes, at: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    value = blocks.little_endian(at, 4)
    return np.where(value >= 1 << 31, value - (1 << 32), value)


def _dib_detail(data: bytes, _: int, at: int = 4) -> str:
    width, height, _, depth = struct.unpack_from("<iiHH", data, at)
    return f"{width:,} × {abs(height):,}, {depth} bits"


def _is_tiff(blocks: FirstBytes) -> Mask:
    """The first directory lies in the block and its first field has a type."""
    is_little = blocks.raw[:, 0] == ord("I")
    at = np.where(is_little, blocks.little_endian(4, 4), blocks.big_endian(4, 4))
    count, kind = blocks.further(at, 2), blocks.further(at + 4, 2)
    count = np.where(is_little | (count < 0), count, (count & 0xFF) << 8 | count >> 8)
    kind = np.where(is_little | (kind < 0), kind, (kind & 0xFF) << 8 | kind >> 8)
    good: Mask = (at >= 8) & within(count, 1, _MOST_FIELDS) & within(kind, 1, _MOST_FIELD_TYPE)
    return good


def _is_webp(blocks: FirstBytes) -> Mask:
    good: Mask = blocks.is_at(8, b"WEBPVP8") & (blocks.little_endian(4, 4) >= 12)
    return good


def _is_codestream(blocks: FirstBytes) -> Mask:
    """JPEG 2000: SIZ of 41 bytes and 3 more for each of the components behind it."""
    good: Mask = blocks.big_endian(4, 2) == 38 + 3 * blocks.big_endian(40, 2)
    return good


FORMATS = (
    Format("PNG image", b"\x89PNG\r\n\x1a\n", _is_png, detail=_png_detail),
    Format("JPEG image", b"\xff\xd8\xff", _is_jpeg),
    Format("GIF image", b"GIF87a", _is_gif, detail=_gif_detail),
    Format("GIF image", b"GIF89a", _is_gif, detail=_gif_detail),
    Format("BMP image", b"BM", _is_bmp, detail=lambda data, size: _dib_detail(data, size, 18)),
    Format("bitmap (BITMAPINFO and pixels)", b"\x28\0\0\0", _is_dib, detail=_dib_detail),
    Format("TIFF image", b"II*\0", _is_tiff),
    Format("TIFF image", b"MM\0*", _is_tiff),
    Format("WebP image", b"RIFF", _is_webp),
    Format("DDS texture", b"DDS \x7c\0\0\0"),
    Format("JPEG 2000 image", b"\xff\x4f\xff\x51", _is_codestream),
    Format("OpenEXR image", b"v/1\x01\x02\0\0\0"),
    Format("Photoshop image", b"8BPS\0\x01\0\0\0\0\0\0"),
)
