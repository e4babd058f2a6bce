"""Symbol paths: the words of `_NT_SYMBOL_PATH` as stores in order.

Elements are separated by `;`. `srv*A*B*https://x` are stores, searched from left to right; what is found is kept in
those to the left. `cache*A` keeps what servers behind it give. Everything else is a folder, or a server. Source:
Microsoft's pages on symbol paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from heapdump import system

_URL = re.compile(r"(?i)https?:")
SHARE = re.compile(r"\\\\|//")
"""Begins the name of a share: it is opened on Windows only."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a symbol path.

    Attributes:
        stores: folders and URLs of servers, searched from left to right.
        keeps: True where a file that is found is copied to the stores to its left.
    """

    stores: tuple[Path | str, ...]
    keeps: bool


def elements(symbol_path: str) -> list[Element]:
    """The elements of a symbol path, in order."""
    out: list[Element] = []
    caches: tuple[Path | str, ...] = ()
    for text in symbol_path.split(";"):
        word, *rest = (part.strip() for part in text.split("*"))
        named = tuple(_store(part) for part in rest if part)
        if word.lower() == "cache":
            caches += named
            out.append(Element(named, keeps=False))
        elif word.lower() == "srv":
            out.append(Element((*caches, *named), keeps=True))
        elif word.lower() == "symsrv":
            out.append(Element((*caches, *named[1:]), keeps=True))
        elif word:
            is_server = bool(_URL.match(word))
            out.append(Element((*(caches if is_server else ()), _store(word), *named), keeps=is_server))
    return [one for one in out if one.stores]


def _store(text: str) -> Path | str:
    return text if _URL.match(text) or (SHARE.match(text) and not system.IS_WINDOWS) else Path(text)


def folders(symbol_path: str) -> list[Path]:
    """The folders that a symbol path names, in order; servers are left out."""
    found = (store for element in elements(symbol_path) for store in element.stores)
    return list(dict.fromkeys(store for store in found if isinstance(store, Path)))
