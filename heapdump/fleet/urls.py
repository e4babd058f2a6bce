"""Dumps that URLs of fsspec name: on which machine or in which archive they lie is a matter of that package.

An archive of several dumps (`.zip`) on a disk of this machine needs no package: `zip://below/a.dmp::all.zip`.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

_MIN_EXPANSION_BYTES, _MAX_EXPANSION = 4 << 30, 2000


def is_url(word: str) -> bool:
    """True for `s3://bucket/crash.dmp`; a drive letter is none."""
    return "://" in word


def urls_of(word: str, is_dump: Callable[[str], bool]) -> Iterator[str]:
    """The files that a URL stands for: those of a pattern, those below a folder for which `is_dump` is true, itself.

    A URL that cannot be listed stands for itself: the reason comes with the attempt to read it.
    """
    first, separator, rest = word.partition("::")
    try:
        system, path = _system(word)
        if any(letter in first for letter in "*?["):
            names = [str(name) for name in system.glob(path)]
        else:
            names = [str(name) for name in system.find(path) if is_dump(str(name))] if system.isdir(path) else [path]
    except Exception:  # noqa: BLE001  # each protocol has errors of its own
        yield word
        return
    protocol = first.partition("://")[0]
    yield from (f"{protocol}://{name}{separator}{rest}" for name in names)


def size_and_time(url: str) -> tuple[int | None, int | None]:
    """(bytes of a URL's file, time of modification of its archive); None for what is not known."""
    found = _in_local_zip(url)
    with contextlib.suppress(Exception):
        if found:
            archive, member = found
            with zipfile.ZipFile(archive) as files:
                return files.getinfo(member).file_size, int(Path(archive).stat().st_mtime)
        system, path = _system(url)
        size = system.info(path)["size"]
        return (int(size) if isinstance(size, int) else None), None
    return None, None


@contextlib.contextmanager
def opened(url: str) -> Iterator[IO[bytes]]:
    """The bytes of a URL's file.

    Raises:
        ImportError: fsspec, or what it needs for the protocol, is not installed.
        ValueError: there is no such protocol.
        OSError, KeyError: the file cannot be read.
    """
    found = _in_local_zip(url)
    if found:
        archive, member = found
        with zipfile.ZipFile(archive) as files:
            about = files.getinfo(member)
            if about.file_size > max(_MIN_EXPANSION_BYTES, _MAX_EXPANSION * about.compress_size):
                raise ValueError(f"{about.compress_size:,} packed bytes claim to be {about.file_size:,}")
            with files.open(about) as file:
                yield file
        return
    import fsspec

    with fsspec.open(url, "rb") as file:
        yield file


def _in_local_zip(url: str) -> tuple[str, str] | None:
    """(archive on this machine, its member) of `zip://member::archive`; None for any other URL."""
    name, _, archive = url.partition("::")
    is_local = name.startswith("zip://") and archive and Path(archive).is_file()
    return (archive, name.removeprefix("zip://").lstrip("/")) if is_local else None


def _system(url: str) -> tuple[Any, str]:
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, str(path)


def dumps_in_zip(archive: str, is_dump: Callable[[str], bool]) -> list[str]:
    """The URLs of the dumps in a zip archive of two dumps or more; empty for any other file."""
    if not archive.lower().endswith(".zip"):
        return []
    try:
        with zipfile.ZipFile(archive) as files:
            names = [name for name in files.namelist() if is_dump(name) and "::" not in name]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return []
    return [f"zip://{name}::{archive}" for name in names] if len(names) > 1 else []
