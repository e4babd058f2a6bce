"""Text folded to the width of a column: between words, and inside names only where one of their parts ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len, chop_cells

UNIT = re.compile(r"(?<=\d) (?=(?:bytes?|B|kB|MB|GB|TB)\b)")
"""The space between a number and its unit, which no line ends with."""
GLUE = "\ue000"
"""Stands for such a space while a text is folded; `printable` lets none through."""

_PART = re.compile(r"(?<=[!\\/,])|(?=\+0x|::|\()")
"""Where a long name may be parted: `module!` symbol `+0x12`, path\\ file, namespace ::name."""


def fold(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` terminal cells; a word that is wider is parted.

    >>> fold("visioncore.dll!PushFrame", 16)
    ['visioncore.dll!', 'PushFrame']
    """
    if cell_len(text) <= width:
        return [text]
    lines = [""]
    for piece in _pieces(UNIT.sub(GLUE, text), width):
        if cell_len((lines[-1] + piece).rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip().replace(GLUE, " ") for line in lines]


def _pieces(text: str, width: int) -> Iterator[str]:
    """Words with the spaces behind them; parts of those that are wider than a line."""
    for word in re.findall(r"\s*\S+\s*|\s+", text):
        if cell_len(word.rstrip()) <= width:
            yield word
            continue
        for part in _PART.split(word):
            yield from chop_cells(part, width)
