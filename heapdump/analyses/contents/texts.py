"""Formats of text: JSON, XML, HTML, SQL, paths, addresses of the web, base64 and so on; as ASCII, UTF-8 or UTF-16.

Tests see characters of one byte in lower case: those of UTF-16 text are the even bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.contents.first_bytes import FIRST_BYTES, FirstBytes, Mask, Numbers, Test, all_of, always

_LONG = 48
"""Characters that a text without a signature needs."""

_FEWEST_OF_KIND = 4
_CAPITALS = 4
"""Of 48 characters of base64 8 (deviation 2.6) are capitals behind a capital. In names of programs they are rare."""

_LEAST = 18
"""Bytes of text with letters that are no ASCII: fewer are met in random bytes."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A kind of text. `word`: its name; `prefixes`: how it begins, in lower case; `test`: of its characters."""

    word: str
    prefixes: tuple[bytes, ...]
    test: Test = always


def _has(blocks: FirstBytes, *texts: bytes) -> Mask:
    """True where one of these parts lies somewhere among the characters."""
    found = np.zeros(len(blocks), bool)
    for part in texts:
        places = FIRST_BYTES - len(part) + 1
        here = np.ones((len(blocks), places), bool)
        for i, value in enumerate(part):
            here &= blocks.raw[:, i : i + places] == value
        found |= here.any(axis=1)
    return found


def _is_json(blocks: FirstBytes) -> Mask:
    """An object or an array that begins with a name and a value, or with objects, texts or arrays."""
    first = blocks.raw[:, 0]
    packed = _without_spaces(blocks)
    second = packed[:, 1]
    named = _has(blocks, b'":', b'" :')
    is_object = (first == ord("{")) & (second == ord('"')) & named
    inside = (second == ord("{")) | (second == ord('"')) | (second == ord("["))
    is_array = (first == ord("[")) & inside & (named | _has(blocks, b'",', b'"]', b"],"))
    good: Mask = is_object | is_array
    return good


def _without_spaces(blocks: FirstBytes) -> NDArray[np.uint8]:
    """The characters, white space moved behind the others."""
    order = np.argsort(blocks.raw <= ord(" "), axis=1, kind="stable")
    return np.take_along_axis(blocks.raw, order, axis=1)


def _is_markup(blocks: FirstBytes) -> Mask:
    """An element: a name of letters, and `>` or an attribute behind it."""
    first = blocks.raw[:, 1]
    is_name = ((first >= ord("a")) & (first <= ord("z"))) | (first == ord("/"))
    return all_of(is_name, _has(blocks, b"/>", b"</", b'="', b"='", b"><"), _has(blocks, b">", b'="'))


def _is_path(blocks: FirstBytes) -> Mask:
    """A letter, a colon and a separator, then a character that names can have."""
    first, third, fourth = blocks.raw[:, 0], blocks.raw[:, 2], blocks.raw[:, 3]
    is_drive = (first >= ord("a")) & (first <= ord("z")) & (blocks.raw[:, 1] == ord(":"))
    good: Mask = is_drive & ((third == ord("\\")) | (third == ord("/"))) & ((fourth >= ord(" ")) | (fourth == 0))
    return good


def _is_guid(blocks: FirstBytes) -> Mask:
    """`{` 8 - 4 - 4 - 4 - 12 hexadecimal digits `}`."""
    dashes = np.array([9, 14, 19, 24])
    digits = np.setdiff1d(np.arange(1, 37), dashes)
    good: Mask = (
        _is_hexadecimal(blocks.raw[:, digits]).all(axis=1)
        & (blocks.raw[:, dashes] == ord("-")).all(axis=1)
        & (blocks.raw[:, 37] == ord("}"))
    )
    return good


def _is_hexadecimal(raw: NDArray[np.uint8]) -> Mask:
    found: Mask = ((raw >= ord("0")) & (raw <= ord("9"))) | ((raw >= ord("a")) & (raw <= ord("f")))
    return found


TEXTS = (
    TextFormat("JSON text", (b"{", b"["), _is_json),
    TextFormat("XML text", (b"<?xml ",)),
    TextFormat("HTML text", (b"<!doctype html", b"<html")),
    TextFormat("SVG text", (b"<svg ",)),
    TextFormat("XML or HTML text", (b"<",), _is_markup),
    TextFormat("SQL text", (b"select ",), lambda blocks: _has(blocks, b" from ", b"\nfrom ", b", ", b"*", b"(")),
    TextFormat("SQL text", (b"insert into ", b"delete from ", b"create table ", b"create index ", b"alter table ")),
    TextFormat("SQL text", (b"update ",), lambda blocks: _has(blocks, b" set ")),
    TextFormat("URL", (b"http://", b"https://", b"file:///", b"ftp://", b"ws://", b"wss://")),
    TextFormat("HTTP message", (b"http/1.", b"get /", b"put /", b"post /", b"head /", b"delete /", b"options /")),
    TextFormat("PEM text", (b"-----begin ",)),
    TextFormat("GUID text", (b"{",), _is_guid),
    TextFormat("file path", (b"\\\\?\\", b"\\??\\", b"\\device\\", b"\\systemroot\\")),
    TextFormat("registry path", (b"\\registry\\", b"hkey_", b"hklm\\", b"hkcu\\")),
    TextFormat("file path", tuple(bytes([letter]) + b":" for letter in range(ord("a"), ord("z") + 1)), _is_path),
)
"""The first that fits counts."""

HEXADECIMAL, BASE64 = "hexadecimal text", "base64 text"
"""Long texts of few characters, which have no signature."""


def lowered(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ASCII letters in lower case."""
    return np.where((raw >= ord("A")) & (raw <= ord("Z")), raw | 0x20, raw).astype(np.uint8)


_IS_CODED = np.zeros(256, bool)
_IS_CODED[list(b"+/=-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] = True


def is_coded(raw: NDArray[np.uint8]) -> Mask:
    """True where all characters of (n, m) are letters, digits, `+`, `/`, `=`, `-` or `_`: those of base64."""
    good = np.asarray(_IS_CODED[raw[:, :2]].all(axis=1))
    rows = np.flatnonzero(good)
    good[rows] = _IS_CODED[raw[rows]].all(axis=1)
    return good


def coded_words(blocks: FirstBytes) -> list[tuple[str, Mask]]:
    """(word, mask) of long texts of few characters. `blocks`: with upper and lower case.

    Base64: capitals stand beside capitals; in words and paths of programs they do not.
    """
    raw = blocks.raw[:, :_LONG]
    small, capital = (raw >= ord("a")) & (raw <= ord("z")), (raw >= ord("A")) & (raw <= ord("Z"))
    digit = (raw >= ord("0")) & (raw <= ord("9"))
    is_both = (digit.sum(axis=1) >= _FEWEST_OF_KIND) & ((small | capital).sum(axis=1) >= _FEWEST_OF_KIND)
    is_hexadecimal = _is_hexadecimal(lowered(raw)).all(axis=1) & is_both
    several = (np.diff(raw.astype(np.int64), axis=1) != 0).mean(axis=1) > 0.5
    pairs: Numbers = (capital[:, 1:] & capital[:, :-1]).sum(axis=1)
    mixed = (
        (small.sum(axis=1) >= _FEWEST_OF_KIND)
        & (capital.sum(axis=1) >= _FEWEST_OF_KIND)
        & (digit.sum(axis=1) >= 2)
        & (pairs >= _CAPITALS)
    )
    return [(HEXADECIMAL, is_hexadecimal & several), (BASE64, is_coded(raw) & mixed)]


def _utf8_pairs() -> Mask:
    """(65536,) True for two bytes that may follow each other in UTF-8 text, the first one in the lower half."""
    byte = np.arange(256)
    plain = ((byte >= 0x20) & (byte < 0x7F)) | ((byte >= 9) & (byte <= 13))
    is_lead, is_more = (byte >= 0xC2) & (byte < 0xF5), (byte >= 0x80) & (byte < 0xC0)
    known = plain | is_lead | is_more
    first, second = np.meshgrid(byte, byte)
    good: Mask = known[first] & known[second]
    good &= is_more[first] | (is_lead[first] == is_more[second])
    return good.reshape(-1)


_UTF8_PAIRS = _utf8_pairs()


def may_be_utf8(raw: NDArray[np.uint8]) -> Mask:
    """False where the first four bytes, none of them 0, begin no UTF-8 text: a quick test before `is_utf8`."""
    first, second, third, fourth = (raw[:, place].astype(np.int32) for place in range(4))
    good: Mask = _UTF8_PAIRS[first | second << 8] & _UTF8_PAIRS[third | fourth << 8]
    good &= (first < 0x80) | (first >= 0xC0)
    return good


def is_utf8(raw: NDArray[np.uint8], known: Numbers, least: int = 2) -> Mask:
    """True for text with letters that are no ASCII, up to the first zero or the end; (n,) bool.

    At least 18 bytes and `least` letters of several bytes; no other byte of 0x80 and more; no control character.
    """
    places = np.arange(raw.shape[1])
    is_over = np.logical_or.accumulate(raw == 0, axis=1) | (places >= known[:, None])
    lead = [(raw >= 0xC2) & (raw < 0xE0), (raw >= 0xE0) & (raw < 0xF0), (raw >= 0xF0) & (raw < 0xF5)]
    is_more, expected = (raw >= 0x80) & (raw < 0xC0), np.zeros(raw.shape, bool)
    for more, mask in enumerate(lead, 1):
        for shift in range(1, more + 1):
            expected[:, shift:] |= mask[:, :-shift]
    plain = ((raw >= 0x20) & (raw < 0x7F)) | ((raw >= 9) & (raw <= 13))
    is_lead = lead[0] | lead[1] | lead[2]
    good = (is_over | plain | is_lead | is_more).all(axis=1)
    ended = np.zeros((len(raw), 1), bool) if raw.shape[1] == 0 else is_over[:, -1:]
    good &= ((is_more == expected) | (is_over & ~expected) | (~ended & (places >= raw.shape[1] - 3))).all(axis=1)
    found: Mask = (
        good & ((is_lead & ~is_over).sum(axis=1) >= least) & ((~is_over).sum(axis=1) >= min(_LEAST, raw.shape[1]))
    )
    return found
