"""Numbers and names as text, and back: shares, WinDbg's address forms, escaped strings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from heapdump.errors import WrongUsage
from heapdump.spans import Span
from heapdump.wording import a_size, plural, preview, short_size, size

__all__ = [
    "a_size",
    "address",
    "bar",
    "count",
    "exact_share",
    "parse_address",
    "parse_size",
    "parse_sizes",
    "parse_span",
    "plural",
    "preview",
    "printable",
    "share",
    "short_size",
    "size",
]

_TOP = (1 << 64) - 1
_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def share(value: float | None) -> str:
    """`93%`, `<1%` and `>99%` where rounding would say none or all, empty for None."""
    if value is None:
        return ""
    if 0 < value < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= value < 1 else f"{value:.0%}"


def exact_share(value: float | None) -> str:
    """`92.89%` as WinDbg prints shares, empty for None."""
    return "" if value is None else f"{value:.2%}"


def bar(value: float, most: float, width: int) -> str:
    """A bar of at most `width` cells, relative to `most`; at least an eighth of a cell for what is not zero."""
    eighths = round(8 * width * value / most) if most > 0 else 0
    eighths = max(eighths, 1) if value > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def address(value: int | None) -> str:
    """`0x29fb0000`, `-` for None."""
    return "-" if value is None else f"{value:#x}"


def count(value: int | None) -> str:
    """`12,345`, `-` for None."""
    return "-" if value is None else f"{value:,}"


def printable(text: str) -> str:
    """The text with control characters, line and direction marks and broken surrogates escaped: `\\x1b`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSAFE else c for c in text)


_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def parse_address(text: str) -> int:
    """An address as WinDbg prints it: `0x29fb0000`, `29fb0000`, ``00000000`29fb0000``.

    Raises:
        WrongUsage: it is none.
    """
    digits = text.strip().replace("`", "").lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{1,16}", digits):
        raise WrongUsage(f"{text!r} is not an address; write it in hex as WinDbg does: 0x29fb0000 or 00000000`29fb0000")
    return int(digits, 16)


def parse_size(text: str) -> int:
    """A size in bytes: `4096`, `0x1000`, `64K`, `1M`.

    Raises:
        WrongUsage: it is none.
    """
    match = re.fullmatch(r"(0x[0-9a-f]+|\d+)\s*([kmgt]?)b?", text.strip().lower())
    if match is None or (match[1].startswith("0x") and match[2]):
        raise WrongUsage(f"{text!r} is not a size; write 4096, 0x1000, 64K or 1M; of ranges 4K..64K, 64K.. or ..1M")
    return int(match[1], 0) * _SUFFIXES[match[2].upper()]


def parse_sizes(text: str) -> Span:
    """Sizes from A to B inclusive as a half-open span: `4K..64K`, `4K-64K`, `64K..`, `..1M`, `>1M`, `<=1M`, `4096`.

    Raises:
        WrongUsage: it is neither a size nor a range of sizes.
    """
    words = text.strip().replace(" ", "")
    bound = re.fullmatch(r"([<>])(=?)(.+)", words)
    if bound is not None:
        size = parse_size(bound[3])
        inclusive = 1 if bound[2] else 0
        return Span(min(size + 1 - inclusive, _TOP), _TOP) if bound[1] == ">" else Span(0, min(size + inclusive, _TOP))
    return parse_span(re.sub(r"(?<=\w)-(?=\w)", "..", words), parse_size, 1)


def parse_span(text: str, parse: Callable[[str], int], last: int) -> Span:
    """`A..B`, `A..` or `..B` as a half-open span, `A` as that alone; `last` = 1 when B itself belongs to it.

    Raises:
        WrongUsage: B lies below A.
    """
    low, dots, high = text.partition("..")
    start = min(parse(low), _TOP) if low else 0
    end = min((parse(high) + last if high else _TOP) if dots else start + 1, _TOP)
    if end < start:
        raise WrongUsage(f"{text!r} ends before it begins")
    return Span(start, end)
