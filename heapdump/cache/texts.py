"""Texts of the index: each file begins with a line that holds the SHA-256 of the rest."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(text: str) -> str:
    """The SHA-256 of a text in UTF-8, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_text(path: Path) -> str:
    """The text that `write_text` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        OSError, ValueError: it cannot be read, or does not verify.
    """
    found, _, text = path.read_text(encoding="utf-8").partition("\n")
    if found != digest(text):
        raise ValueError(f"{path.name} is not as it was written")
    return text


def write_text(path: Path, text: str) -> None:
    """Writes a text behind a line with its digest."""
    path.write_text(f"{digest(text)}\n{text}", encoding="utf-8")
