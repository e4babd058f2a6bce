"""Defaults of options that a user keeps: `.heapdump.toml`, or `[tool.heapdump]` of a `pyproject.toml`.

The nearest one counts: of the current folder, else of the folders above it, else `.heapdump.toml` of the home folder.
What is typed wins over it; it wins over environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from heapdump.errors import WrongUsage


class SearchPath(str):
    """A symbol path whose folders are beside the file that sets it."""

    __slots__ = ()

    def beside(self, folder: Path) -> str:
        """The path with its relative folders below one."""
        return ";".join("*".join(_beside(folder, part) for part in element.split("*")) for element in self.split(";"))


_NO_FOLDER = re.compile(r"(?i)|srv|symsrv|cache|\w+\.dll|https?:.*")


def _beside(folder: Path, part: str) -> str:
    text = part.strip()
    return text if _NO_FOLDER.fullmatch(text) or PureWindowsPath(text).anchor else str(folder / text)


_OPTIONS = {
    "skip-modules": ("skip_module", list),
    "suppressions": ("suppressions", Path),
    "symbols": ("symbols", str),
    "image-path": ("image_path", SearchPath),
    "color": ("color", str),
    "limit": ("limit", int),
}
"""Name in the file → (the option's parameter, the type of its value)."""

_OWN, _PROJECT = ".heapdump.toml", "pyproject.toml"


def user_defaults(folder: Path | None = None) -> dict[str, Any]:
    """Parameter of an option → its default; empty without a file. `folder` None: the current one.

    Raises:
        WrongUsage: the file cannot be read, or has a name or a value that means nothing.
    """
    for path in _places(folder or Path.cwd()):
        table = _table(path)
        if table is not None:
            return dict(_default(path, name, value) for name, value in table.items())
    return {}


def _places(folder: Path) -> Iterator[Path]:
    for place in (folder, *folder.parents):
        yield place / _OWN
        yield place / _PROJECT
    try:
        yield Path.home() / _OWN
    except RuntimeError:  # no home folder is known
        return


def _table(path: Path) -> dict[str, Any] | None:
    """The settings of a file; None where it is not there, or has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if path.name == _PROJECT and "tool.heapdump" not in text:
        return None
    import tomllib

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if path.name == _PROJECT:
            return None
        raise WrongUsage(f"{path} is not TOML: {error}") from error
    table = found.get("tool", {}).get("heapdump") if path.name == _PROJECT else found
    return table if isinstance(table, dict) else None


def _default(path: Path, name: str, value: object) -> tuple[str, Any]:
    if name not in _OPTIONS:
        raise WrongUsage(f"{path} sets {name!r}; there are: {', '.join(_OPTIONS)}")
    parameter, kind = _OPTIONS[name]
    if kind is SearchPath and isinstance(value, str):
        return parameter, SearchPath(value).beside(path.parent)
    if kind is Path and isinstance(value, str):
        return parameter, str(path.parent / value)
    if kind is list and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return parameter, value
    if kind is list or not isinstance(value, kind) or isinstance(value, bool):
        words = {list: "a list of texts", int: "a number"}.get(kind, "a text")
        raise WrongUsage(f"{path}: {name} is {words}")
    return parameter, value
