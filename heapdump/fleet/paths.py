"""The dumps that paths name: files, folders with all below them, patterns, and URLs of fsspec."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_NAMES = (".dmp", ".mdmp", ".hdmp")
_PACKED = (".gz", ".xz", ".zst", ".zip", ".cab")


def dumps_of(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(dumps, each once, words without any). Files that are named count whatever their suffix; the order is by path.

    A folder stands for the dumps in it and below it, packed ones too; links to folders are not followed.
    """
    found: dict[str, None] = {}
    missing = []
    for word in words:
        dumps = sorted(_dumps(word))
        missing += [] if dumps else [word]
        found |= dict.fromkeys(dumps)
    return list(found), missing


def is_url(word: str) -> bool:
    """True for `s3://bucket/crash.dmp`; a drive letter is none."""
    return "://" in word


def _dumps(word: str) -> Iterator[str]:
    if is_url(word):
        yield word
    elif Path(word).is_dir():
        yield from _below(word)
    elif Path(word).is_file():
        yield word
    else:
        for name in glob.glob(word, recursive=True):  # noqa: PTH207  # Path.glob takes no absolute pattern
            yield from _below(name) if Path(name).is_dir() else (name,)


def _below(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        yield from (str(Path(place) / name) for name in names if _is_dump_name(name.lower()))


def _is_dump_name(name: str) -> bool:
    return name.removesuffix(next((one for one in _PACKED if name.endswith(one)), "")).endswith(_NAMES)
