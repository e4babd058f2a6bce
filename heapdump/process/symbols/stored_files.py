"""Files of symbol stores on disk: names that are safe, written whole or not at all, unpacked from cabinets."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from heapdump import system
from heapdump.dump.cabinet import DamagedCabinet, open_only_member
from heapdump.dump.streams import PdbId

_STEP, _MOST_BYTES, _DAY_SECONDS, _LONGEST_NAME = 1 << 20, 2 << 30, 86_400, 200
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_PDB_KEY, _IMAGE_KEY = re.compile(r"[0-9A-F]{33,40}"), re.compile(r"[0-9A-F]{8}[0-9a-f]{1,8}")


class NotKept(Exception):
    """A file cannot be unpacked or copied; the message says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that is searched in symbol stores.

    Attributes:
        name: file name.
        key: folder of its build in a store: of a PDB GUID and age, of an image time stamp and size, in hexadecimal.
    """

    name: str
    key: str

    def below(self, folder: Path) -> Path:
        """Where the file lies in a store of one tier."""
        return system.long_path(folder / self.name / self.key / self.name)


def wanted_pdb(pdb: PdbId) -> Wanted | None:
    """The PDB of a CodeView record; None where its name or key would lead elsewhere."""
    return _wanted(pdb.path, f"{pdb.guid.upper()}{pdb.age:X}", _PDB_KEY)


def wanted_image(name: str, timestamp: int, size: int) -> Wanted | None:
    """An image; None where its name would lead elsewhere."""
    return _wanted(name, f"{timestamp:08X}{size:x}", _IMAGE_KEY)


def _wanted(path: str, key: str, form: re.Pattern[str]) -> Wanted | None:
    name = path.replace("\\", "/").rpartition("/")[2]
    return Wanted(name, key) if is_plain(name) and form.fullmatch(key) else None


def is_plain(name: str) -> bool:
    """True for a file name that leads nowhere: no separator, drive, stream, device, folder, control character."""
    if not name or len(name) > _LONGEST_NAME or name[-1] in ". " or _FORBIDDEN.search(name):
        return False
    return not _DEVICES.fullmatch(name)


def packed_name(name: str) -> str:
    """`ntdll.pd_` of `ntdll.pdb`: how stores name a cabinet with that file."""
    return f"{name[:-1]}_"


def unpack(source: BinaryIO, out: BinaryIO) -> None:
    """Writes the one file of a cabinet.

    Raises:
        NotKept: it is damaged, holds several files, is too large, or is packed with LZX.
        OSError: it cannot be read or written.
    """
    try:
        left, member = _MOST_BYTES, open_only_member(source)
        while data := member.read(_STEP):
            left -= len(data)
            if left < 0:
                raise NotKept(f"holds more than {_MOST_BYTES:,} bytes")
            out.write(data)
    except DamagedCabinet as error:
        if "LZX" in str(error):
            raise NotKept("is compressed with LZX: expand it (`expand` of Windows, or `cabextract`)") from error
        raise NotKept(f"cannot be unpacked: {error}") from error


def copy(source: Path, out: BinaryIO) -> None:
    """Writes the bytes of a file.

    Raises:
        OSError: one of the two fails.
    """
    with source.open("rb") as file:
        while data := file.read(_STEP):
            out.write(data)


def keep(root: Path, wanted: Wanted, write: Callable[[BinaryIO], bool | None], accept: Callable[[Path], bool]) -> bool:
    """Puts a file into the store at `root`: written under another name, accepted, then renamed; so it is there whole.

    `write` puts its bytes into a file, False ends without one; `accept` looks at that file before it gets its name.

    Returns:
        True where the file is in the store now.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    delete_left(root)
    descriptor, part = system.create_exclusively(root)
    try:
        with os.fdopen(descriptor, "wb") as out:
            if write(out) is False:
                return False
            out.flush()
            os.fsync(out.fileno())
        return move_in(part, root, wanted, accept)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def move_in(part: Path, root: Path, wanted: Wanted, accept: Callable[[Path], bool]) -> bool:
    """Gives a complete file of the same disk its name in the store at `root`; False where `accept` refuses it.

    Raises:
        OSError: the folder cannot be made, or the file not renamed.
    """
    if not accept(part):
        return False
    part.chmod(system.new_file_mode())
    target = wanted.below(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
    return True


def delete_left(root: Path) -> None:
    """Deletes partial files of killed processes and of downloads that nobody continued, from an age of one day on."""
    for left in root.glob(".heapdump-*.part"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY_SECONDS:
                left.unlink()
