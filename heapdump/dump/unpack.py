"""Unpacks a compressed dump once, to a temporary file, and stops before it fills the disk.

Only the bytes of the dump inside are written; no path of an archive is ever used. The standard library unpacks gzip, xz
and zip, its package zstandard, `cabinet.py` cabinets. All are read as streams, in limited memory
(`limits.MAX_UNPACKER_BYTES`).
"""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from heapdump import system
from heapdump.dump import limits
from heapdump.dump.cabinet import DamagedCabinet, open_member
from heapdump.dump.directory import MAGIC
from heapdump.dump.sniff import describe_other
from heapdump.dump.zip_limits import require_small_dictionary, require_small_directory
from heapdump.errors import DumpError, HostileDump, NotAMinidump

DUMP_SUFFIXES = (".dmp", ".mdmp", ".hdmp")
_CHUNK = 4 << 20
_ZSTANDARD_PIECE = 512
_PACKED_PIECE = 1 << 16

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all); 0 bytes in all where that is not known."""


def unpack(path: Path, kind: str, progress: Progress) -> BinaryIO:
    """The unpacked dump as a temporary file, which is deleted when it is closed or the process is killed.

    Raises:
        NotAMinidump: the unpacked file is not a minidump.
        HostileDump: the unpacked file is larger than the limits, or would fill the disk.
        DumpError: the archive is damaged, or holds no dump, or several.
    """
    with ExitStack() as on_error:
        try:
            out = on_error.enter_context(system.temporary_file("heapdump-unpacked-"))
            with _opened(path, kind) as source:
                _copy(path, source, out, progress)
            out.flush()
        except (
            OSError,
            EOFError,
            zlib.error,
            lzma.LZMAError,
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise DumpError(f"{path}: the {kind} data cannot be unpacked: {error or type(error).__name__}") from error
        on_error.pop_all()
    return out


def _copy(path: Path, source: IO[bytes], out: IO[bytes], progress: Progress) -> None:
    """Copies all unpacked bytes; `path`: the packed file, for messages and limits."""
    most = max(limits.MIN_EXPANSION_BYTES, limits.MAX_EXPANSION * path.stat().st_size)
    written = 0
    while chunk := source.read(_CHUNK):
        if not written and not chunk.startswith(MAGIC):
            raise NotAMinidump(f"{path}: what is packed inside is {describe_other(chunk[:4096])}")
        written += len(chunk)
        if written > most:
            raise HostileDump(
                f"{path}: {path.stat().st_size:,} packed bytes unpack to more than {most:,}: "
                "stopped; unpack it yourself if you trust it"
            )
        if shutil.disk_usage(tempfile.gettempdir()).free - len(chunk) < limits.MIN_DISK_FREE_BYTES:
            raise HostileDump(
                f"{path}: stopped after {written:,} unpacked bytes, "
                f"the disk of {tempfile.gettempdir()} is nearly full; "
                "point TMPDIR (TEMP on Windows) at a larger disk, or unpack the dump yourself"
            )
        out.write(chunk)
        progress(written, 0)
    if not written:
        raise NotAMinidump(f"{path}: what is packed inside is empty")


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[IO[bytes]]:
    """The unpacked bytes as a stream."""
    if kind == "gzip":
        with gzip.open(path) as source:
            yield cast(IO[bytes], source)
    elif kind == "xz":
        with path.open("rb") as packed:
            yield cast(IO[bytes], _Xz(packed))
    elif kind == "zstandard":
        with _open_zstandard(path) as source:
            yield source
    elif kind == "zip":
        with path.open("rb") as packed:
            require_small_directory(path, packed)
            with zipfile.ZipFile(packed) as archive:
                member = archive.getinfo(_only_dump(path, archive.namelist()))
                require_small_dictionary(path, packed, member)
                with archive.open(member) as source:
                    yield source
    else:
        with _open_cabinet(path) as source:
            yield source


class _Zstandard(io.RawIOBase):
    """The unpacked bytes of a zstandard file. A truncated file is an error, unlike with the package's reader.

    The unpacker gets the file in pieces of 512 bytes, because a piece may unpack to 30,000 times its size, so 16 MB.
    """

    def __init__(self, packed: IO[bytes]) -> None:
        import zstandard

        self._packed = packed
        self._unpacker = zstandard.ZstdDecompressor()
        self._frame: Any = None
        self._ready = b""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; b"" at the end.

        Raises:
            EOFError: the file ends inside a frame.
        """
        while len(self._ready) < _ZSTANDARD_PIECE:
            piece = self._packed.read(_ZSTANDARD_PIECE)
            if not piece:
                if self._frame is not None:
                    raise EOFError("it ends too early: the file was cut")
                break
            self._ready += self._unpacked(piece)
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    def _unpacked(self, piece: bytes) -> bytes:
        out = []
        while piece:
            self._frame = self._frame or self._unpacker.decompressobj()
            out.append(self._frame.decompress(piece))
            piece = b""
            if self._frame.eof:
                piece, self._frame = self._frame.unused_data, None
        return b"".join(out)


class _Xz(io.RawIOBase):
    """The unpacked bytes of all streams of an xz file, in limited memory. A truncated file is an error."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._ready = packed, b""
        self._unpacker: lzma.LZMADecompressor | None = None

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; b"" at the end.

        Raises:
            EOFError: the file ends inside a stream.
            lzma.LZMAError: it is damaged, or needs more memory than the limit.
        """
        while True:
            if self._unpacker is None or self._unpacker.eof:
                rest = self._unpacker.unused_data if self._unpacker else b""
                self._ready = (self._ready or rest).lstrip(b"\0") or self._packed.read(_PACKED_PIECE).lstrip(b"\0")
                if not self._ready:
                    return b""
                self._unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.MAX_UNPACKER_BYTES)
            elif self._unpacker.needs_input:
                self._ready = self._packed.read(_PACKED_PIECE)
                if not self._ready:
                    raise EOFError("it ends too early: the file was cut")
            found, self._ready = self._unpacker.decompress(self._ready, size), b""
            if found:
                return found


@contextmanager
def _open_zstandard(path: Path) -> Iterator[IO[bytes]]:
    import zstandard

    try:
        with path.open("rb") as packed:
            yield cast(IO[bytes], _Zstandard(packed))
    except zstandard.ZstdError as error:
        raise DumpError(f"{path}: the zstandard data cannot be unpacked: {error}") from error


def _only_dump(path: Path, names: list[str]) -> str:
    """The only member whose name is that of a dump.

    Raises:
        DumpError: there is none, or there are several.
    """
    dumps = [name for name in names if name.lower().endswith(DUMP_SUFFIXES)]
    if len(dumps) == 1:
        return dumps[0]
    if not dumps:
        raise DumpError(f"{path}: holds no {', '.join(DUMP_SUFFIXES)} file ({len(names)} members)")
    shown = ", ".join(repr(name) for name in dumps[:3])
    raise DumpError(
        f"{path}: holds {len(dumps)} dumps ({shown}{', …' if len(dumps) > 3 else ''}); unpack the one you want"
    )


@contextmanager
def _open_cabinet(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield cast(IO[bytes], open_member(file, partial(_only_dump, path)))
    except DamagedCabinet as error:
        raise DumpError(f"{path}: the cabinet cannot be unpacked: {error}; try `expand` or `cabextract`") from error
