"""Downloads that go on where they stopped: what has come of a file, and which version of the file it belongs to.

A part lies in the folder that will keep the file, under a name made of the URL, a word for who has it, and what the
server calls the version (ETag, else Last-Modified). Who takes a part renames it first, so two processes never write to
the same one. Source: RFC 9110, validators, If-Range and Range.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO

from heapdump import system
from heapdump.process.symbols.stored_files import delete_left

_ABANDONED = "left"
"""The word in the name of a part that nobody writes to."""

_ABANDONED_SECONDS = 120
"""A part that was not written to for this long is nobody's: a server that is silent is left after 30 seconds."""

_LONGEST_VERSION, _STRONG_SECONDS = 80, 60


def version_of(headers: Message) -> str:
    """What If-Range may name: a strong ETag, else a time of modification a minute before the answer; "" for neither."""
    tag = (headers.get("ETag") or "").strip()
    if tag.startswith('"') and tag.isascii() and tag.isprintable() and len(tag) <= _LONGEST_VERSION:
        return tag
    modified, now = ((headers.get(name) or "").strip() for name in ("Last-Modified", "Date"))
    try:
        age = (parsedate_to_datetime(now) - parsedate_to_datetime(modified)).total_seconds()
    except (ValueError, TypeError):
        return ""
    return modified if age >= _STRONG_SECONDS and len(modified) <= _LONGEST_VERSION else ""


class PartialFile:
    """The file that a download goes to. `version`: "" where the server gave none; then it cannot go on later."""

    def __init__(self, path: Path, descriptor: int, version: str) -> None:
        """Use `part_of`."""
        self.path, self.version = path, version
        self._file: BinaryIO = os.fdopen(descriptor, "r+b")
        self.size = self._file.seek(0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        """Appends bytes.

        Raises:
            OSError: they cannot be written.
        """
        self._file.write(data)
        self.size += len(data)

    def restart(self, version: str) -> None:
        """Begins again with another version of the file.

        Raises:
            OSError: the file cannot be made empty or renamed.
        """
        self._file.truncate(0)
        self._file.close()  # Windows renames no open file
        self.path = self.path.rename(_path(self.path.parent, _url_digest(self.path), secrets.token_hex(8), version))
        self._file, self.version, self.size = self.path.open("r+b"), version, 0

    def close(self) -> None:
        """Writes everything to the disk; the file stays.

        Raises:
            OSError: it cannot be written.
        """
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def leave(self) -> None:
        """Closes the file and renames it, so that a later call goes on with it; deletes it without bytes or version."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            if self.size and self.version:
                self.path.replace(_path(self.path.parent, _url_digest(self.path), _ABANDONED, self.version))
            else:
                self.path.unlink(missing_ok=True)

    def delete(self) -> None:
        """Deletes the file, if it still has this name."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def part_of(folder: Path, url: str) -> Iterator[PartialFile]:
    """The partial file of a URL in a folder: one that an earlier download left there, else an empty one.

    At the end of the `with` block it is deleted, unless it was renamed. Where the block raises anything but an OSError
    it stays for the next call.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    delete_left(folder)
    url_digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    part = _abandoned(folder, url_digest) or _new(folder, url_digest)
    try:
        yield part
    except OSError:  # a full disk is not left fuller
        part.delete()
        raise
    except BaseException:
        part.leave()
        raise
    part.delete()


def _path(folder: Path, url_digest: str, word: str, version: str) -> Path:
    return folder / f".heapdump-{url_digest}-{word}-{base64.b32encode(version.encode()).decode().rstrip('=')}.part"


def _url_digest(path: Path) -> str:
    return path.name.split("-")[1]


def _version(path: Path) -> str:
    """The version in the name of a part; "" for a name that has none."""
    text = path.stem.split("-", 3)[-1]
    try:
        return base64.b32decode(text + "=" * (-len(text) % 8)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _new(folder: Path, url_digest: str) -> PartialFile:
    descriptor, path = system.create_exclusively(folder, f"{url_digest}-")
    return PartialFile(path, descriptor, "")


def _abandoned(folder: Path, url_digest: str) -> PartialFile | None:
    """A part that nobody writes to, taken; None where there is none, or it is no file of this user's."""
    for path in folder.glob(f".heapdump-{url_digest}-*-*.part"):
        with contextlib.suppress(OSError):
            is_left = path.name.split("-")[2] == _ABANDONED or time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
            version = _version(path)
            if not is_left or not version:
                continue
            taken = path.rename(_path(folder, url_digest, secrets.token_hex(8), version))
            descriptor = system.open_own(taken)
            if descriptor is not None:
                return PartialFile(taken, descriptor, version)
            taken.unlink()
    return None
