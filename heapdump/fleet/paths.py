"""The dumps that paths name: files, folders with all below them, patterns, and URLs of fsspec."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from heapdump.fleet.urls import dumps_in_zip, is_url, urls_of

_NAMES = (".dmp", ".mdmp", ".hdmp")
_PACKED = (".gz", ".xz", ".zst", ".zip", ".cab")


def dumps_of(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(dumps, each once, words without any). Files that are named count whatever their suffix; the order is by path.

    A folder stands for the dumps in it and below it, packed ones too; links to folders are not followed. A zip archive
    of several dumps stands for each of them.
    """
    found: dict[str, None] = {}
    missing = []
    for word in words:
        dumps = sorted(_dumps(word))
        missing += [] if dumps else [word]
        found |= dict.fromkeys(dumps)
    return list(found), missing


def _dumps(word: str) -> Iterator[str]:
    if is_url(word):
        yield from urls_of(word, lambda name: _is_dump_name(name.lower()))
    elif Path(word).exists():
        yield from _files(word)
    else:
        for name in glob.glob(word, recursive=True):  # noqa: PTH207  # Path.glob takes no absolute pattern
            yield from _files(name)


def _files(name: str) -> Iterator[str]:
    """The dumps of a file or folder."""
    for file in _below(name) if Path(name).is_dir() else (name,):
        inside = dumps_in_zip(file, lambda member: _is_dump_name(member.lower()))
        yield from inside or (file,)


def _below(folder: str) -> Iterator[str]:
    """Dumps, and archives that may hold several."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = str(Path(place) / name)
            if _is_dump_name(name.lower()) or dumps_in_zip(path, lambda member: _is_dump_name(member.lower())):
                yield path


def _is_dump_name(name: str) -> bool:
    return name.removesuffix(next((one for one in _PACKED if name.endswith(one)), "")).endswith(_NAMES)
