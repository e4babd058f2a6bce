"""Servers of the symbol path, for commands that run unattended: only servers that are named for the command are asked.

`_NT_SYMBOL_PATH` is often set for debuggers. `fleet` would ask its servers for hundreds of dumps, and an assistant may
call `mcp` without a person: there the folders of the variable count, its servers do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heapdump.commands.common.request import Request

_URL = re.compile(r"(?i)\s*(https?://[^/;*\s]+)")


def without_servers(symbol_path: str) -> str:
    """A symbol path without its servers."""
    elements = (
        "*".join(part for part in element.split("*") if not _URL.match(part)) for element in symbol_path.split(";")
    )
    return ";".join(one for one in elements if one)


def servers(symbol_path: str) -> list[str]:
    """The servers of a symbol path, each once: `https://symbols.example`."""
    return list(dict.fromkeys(_servers(symbol_path)))


def _servers(symbol_path: str) -> Iterator[str]:
    for part in re.split("[;*]", symbol_path):
        found = _URL.match(part)
        if found:
            yield found[1].rpartition("@")[2] if "@" in found[1] else found[1]


def unwatched(request: Request) -> Request:
    """The request with the servers that options or `.heapdump.toml` name; says which are asked, and which are not."""
    named = servers(request.symbol_path)
    if named and not request.symbols_are_named:
        request.say(f"{', '.join(named)}: not asked for symbols, as only _NT_SYMBOL_PATH names it; --symbols does")
        request = replace(request, symbol_path=without_servers(request.symbol_path))
    for server in servers(f"{request.symbol_path};{request.image_path}"):
        request.say(f"asking {server} for symbols, by name and build of modules; the symbol path names it")
    return request
