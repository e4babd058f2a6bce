"""Formats of sound and video. Sources: RIFF (mmreg.h), Ogg (RFC 3533), FLAC, ID3v2, ISO 14496-12, Matroska."""

from __future__ import annotations

import numpy as np

from heapdump.analyses.contents.first_bytes import FirstBytes, Format, Mask, all_of, within


def _is_wave(blocks: FirstBytes) -> Mask:
    good: Mask = blocks.is_at(8, b"WAVE") & (blocks.little_endian(4, 4) >= 20)
    return good


def _is_avi(blocks: FirstBytes) -> Mask:
    good: Mask = blocks.is_at(8, b"AVI LIST")
    return good


def _is_id3(blocks: FirstBytes) -> Mask:
    """Version 2.2 to 2.4, four flags at most, a length of 7 bits a byte."""
    length = blocks.raw[:, 6:10]
    lengths = np.array((length < 0x80).all(axis=1)), np.array(length.any(axis=1))
    return all_of(within(blocks.little_endian(3, 1), 2, 4), blocks.little_endian(5, 1) & 0x0F == 0, *lengths)


def _is_brand(blocks: FirstBytes) -> Mask:
    """Of the box `ftyp`: its length, and a brand of letters, digits and spaces."""
    brand = blocks.raw[:, 8:12]
    is_word = ((brand | 0x20) >= ord("a")) & ((brand | 0x20) <= ord("z"))
    is_other = ((brand >= ord("0")) & (brand <= ord("9"))) | (brand == ord(" "))
    length = blocks.big_endian(0, 4)
    good: Mask = within(length, 16, 1024) & (length % 4 == 0) & np.logical_or(is_word, is_other).all(axis=1)
    return good


FORMATS = (
    Format("WAVE sound", b"RIFF", _is_wave),
    Format("AVI video", b"RIFF", _is_avi),
    Format("Ogg sound", b"OggS\0"),
    Format("FLAC sound", b"fLaC\0\0\0\x22"),
    Format("MP3 sound (ID3)", b"ID3", _is_id3),
    Format("MIDI music", b"MThd\0\0\0\x06"),
    Format("MP4 data", b"ftyp", _is_brand, at=4),
    Format("Matroska video", b"\x1a\x45\xdf\xa3"),
)
