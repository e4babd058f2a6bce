"""Numbers and bytes as text, for messages of every room: sizes, plurals, printable characters."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def size(value: int | None) -> str:
    """`13.35 GB`, `264 kB`: units of 1024 as WinDbg's, four significant digits, none behind a whole number.

    Whole bytes below 1 kB, `-` for None.
    """
    if value is None:
        return "-"
    scaled, unit = _scaled(value)
    if scaled == int(scaled):
        return f"{int(scaled)} {unit}"
    decimals = 3 - min(3, len(str(int(abs(scaled)))) - 1)
    return f"{scaled:.{decimals}f} {unit}"


def _scaled(value: int) -> tuple[float, str]:
    unit = 0
    scaled = float(value)
    while abs(scaled) >= 1024 and unit < len(_UNITS) - 1:
        scaled /= 1024
        unit += 1
    return scaled, _UNITS[unit]


def short_size(value: int) -> str:
    """`13.3 GB`: one decimal, for sentences."""
    scaled, unit = _scaled(value)
    return f"{scaled:.1f} {unit}" if unit != "B" else plural(value, "byte")


def plural(number: int, word: str) -> str:
    """`1 large block`, `189 large blocks`, `2 entries`."""
    if number != 1:
        word = word[:-1] + "ies" if word.endswith("y") else word + "s"
    return f"{number:,} {word}"


def a_size(size: int, what: str) -> str:
    """`a 309-byte block`, `an 8-byte block`: with the article that the number is spoken with."""
    digits = f"{size:,}"
    leading = digits.partition(",")[0]
    return f"{'an' if leading in ('11', '18') or leading.startswith('8') else 'a'} {digits}-byte {what}"


def preview(data: bytes) -> str:
    """The bytes as ASCII characters, a dot for each byte that is not printable."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
