"""Text of the dump, taken out of records: a program may have written anything there, instructions too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def redacted_places(clean: Any, original: Any, at: str = "") -> Iterator[dict[str, Any]]:
    """A record (place, text) for each text of `original` that `clean`, its redaction, hides."""
    if isinstance(original, dict) and isinstance(clean, dict):
        for name, value in original.items():
            yield from redacted_places(clean.get(name), value, f"{at}.{name}" if at else name)
    elif isinstance(original, (list, tuple)) and isinstance(clean, list) and len(clean) == len(original):
        for number, (one, other) in enumerate(zip(clean, original, strict=True)):
            yield from redacted_places(one, other, f"{at}[{number}]")
    elif clean != original and original is not None:
        yield {"at": at, "untrusted_text": original if isinstance(original, str) else list(original)}
