"""Images that no module list names, found by their headers; the texts in an image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heapdump.memory.regions import Kind, State
from heapdump.memory.space import AddressSpace
from heapdump.process.model import Module, Process
from heapdump.process.symbols.images import Image, image_at
from heapdump.spans import Span

_EXECUTABLE = 0xF0
"""PAGE_EXECUTE… (winnt.h)."""

_MAGIC = int.from_bytes(b"MZ", "little")
_MOST_IMAGE_BYTES = 1 << 31
_WINDOW, _OVERLAP = 1 << 20, 1024
_ASCII = re.compile(rb"[\x20-\x7e\t]{6,}")
_UTF16 = re.compile(rb"(?:[\x20-\x7e\t]\0){6,}")


@dataclass(frozen=True, slots=True)
class ImageText:
    """A text in an image. `address`: of its first byte; `is_wide`: True for UTF-16."""

    address: int
    text: str
    is_wide: bool


def unlisted_images(process: Process) -> list[tuple[Module, Image]]:
    """Images at the start of an allocation that is private or has executable pages, in no module list. Ascending."""
    found = []
    for start, size in _allocations(process):
        image = image_at(process.space, start)
        if image is None or not 0 < image.headers.size <= _MOST_IMAGE_BYTES:
            continue
        name = image.export_name or f"image@{start:#x}"
        headers = image.headers
        span = Span(start, start + min(headers.size, size))
        found.append((Module(name, "", span, None, headers.checksum, headers.timestamp, None), image))
    return found


def _allocations(process: Process) -> Iterator[tuple[int, int]]:
    """(start, bytes) of allocations outside of modules that may hold a mapped image."""
    regions = process.regions
    rows = np.array([*regions.allocation_rows()], np.int64).reshape(-1, 2)
    if not len(rows):
        return
    first, last = rows[:, 0], rows[:, 1]
    is_executable = np.logical_or.reduceat((regions.protect & np.uint32(_EXECUTABLE)) > 0, first)
    likely = (regions.state[first] == State.MEM_COMMIT) & (is_executable | (regions.type[first] == Kind.MEM_PRIVATE))
    first, last = first[likely], last[likely]
    magic, _ = process.space.mapped.gather(regions.start[first], 2)
    for i in np.flatnonzero(magic == _MAGIC).tolist():
        start = int(regions.start[first[i]])
        if process.module_map.at(start) is None:
            yield start, int(regions.end[last[i] - 1]) - start


def texts_of(space: AddressSpace, span: Span) -> Iterator[ImageText]:
    """Texts of 6 characters or more in the memory of a span, ascending in each piece."""
    for part in space.mapped.present(span):
        behind = part.start
        for start in range(part.start, part.end, _WINDOW):
            data = space.try_read(start, min(_WINDOW + _OVERLAP, part.end - start)) or b""
            found = sorted(
                [*(_text(start, match, is_wide=False) for match in _ASCII.finditer(data)),
                 *(_text(start, match, is_wide=True) for match in _UTF16.finditer(data))],
                key=lambda one: one.address,
            )  # fmt: skip
            for one in found:
                if behind <= one.address < start + _WINDOW:
                    behind = one.address + len(one.text) * (2 if one.is_wide else 1)
                    yield one


def _text(start: int, match: re.Match[bytes], *, is_wide: bool) -> ImageText:
    return ImageText(start + match.start(), match[0].decode("utf-16-le" if is_wide else "ascii"), is_wide)
