"""Packed files that ask for much memory: whatever they unpack to, memory stays bounded, and a limit is named."""

from __future__ import annotations

import io
import lzma
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cabarchive
import pytest
import zstandard

from heapdump.dump.open import open_minidump
from heapdump.errors import DumpError, HostileDump
from tests.builders import DumpBuilder

HEAD = DumpBuilder().memory(0x5000, bytes(4096)).build().data
BOMB_BYTES = 160 << 20
_MEASURE = """
import resource, sys
from pathlib import Path
from typing import Any
from heapdump.dump import limits
from heapdump.dump.open import open_minidump
from heapdump.errors import HostileDump
limits.MIN_EXPANSION_BYTES, limits.MAX_EXPANSION = int(sys.argv[2]), 1
import lzma, gzip, zipfile, zstandard, heapdump.dump.cabinet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_minidump(Path(sys.argv[1])).close()
except HostileDump as error:
    print("refused", error, file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def pack(kind: str, path: Path) -> None:
    """A dump and zeros behind it, packed in pieces."""
    zeros = bytes(8 << 20)
    if kind == "cab":
        archive = cabarchive.CabArchive()
        archive["a.dmp"] = cabarchive.CabFile(HEAD + bytes(BOMB_BYTES))
        path.write_bytes(archive.save(compress=True))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped, zipped.open("a.dmp", "w") as member:
            member.write(HEAD)
            for _ in range(BOMB_BYTES // len(zeros)):
                member.write(zeros)
    else:
        unpacked = (HEAD, *[zeros] * (BOMB_BYTES // len(zeros)))
        packers: dict[str, Any] = {
            "gz": zlib.compressobj(1, wbits=31), "xz": lzma.LZMACompressor(preset=0),
            "zst": zstandard.ZstdCompressor().compressobj(),
        }  # fmt: skip
        path.write_bytes(b"".join(map(packers[kind].compress, unpacked)) + packers[kind].flush())


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize("kind", ["gz", "xz", "zst", "zip", "cab"])
def test_memory_does_not_grow_with_what_a_file_unpacks_to(tmp_path: Path, kind: str) -> None:
    pack(kind, tmp_path / f"bomb.{kind}")
    most = BOMB_BYTES - (8 << 20)
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / f"bomb.{kind}"), str(most)]
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=True)
    assert "unpack to more than" in done.stderr
    assert int(done.stdout) < 64 << 10, "KiB more than before"


def xz_with_dictionary(data: bytes, size_code: int) -> bytes:
    """An xz file whose block header asks for a dictionary: code 40 is 4 GiB - 1, 30 is 128 MiB."""
    packed = bytearray(lzma.compress(data))
    end = 12 + (packed[12] + 1) * 4 - 4
    at = 12 + packed[12:end].index(b"\x21\x01") + 2
    packed[at] = size_code
    packed[end : end + 4] = struct.pack("<I", zlib.crc32(packed[12:end]))
    return bytes(packed)


def test_max_unpacker_bytes_bounds_the_dictionary(write_dump) -> None:
    with pytest.raises(DumpError, match="cannot be unpacked: Memory usage limit"):
        open_minidump(write_dump(xz_with_dictionary(HEAD, 40), "a.xz"))
    with open_minidump(write_dump(xz_with_dictionary(HEAD, 30), "b.xz")) as dump:
        assert dump.file_bytes == len(HEAD)


def zipped(method: int) -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("a.dmp", HEAD)
    return bytearray(out.getvalue())


def test_max_unpacker_bytes_bounds_the_dictionary_of_a_zip(write_dump) -> None:
    data = zipped(zipfile.ZIP_LZMA)
    at = 30 + len("a.dmp") + 5
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    with pytest.raises(HostileDump, match="bytes of the LZMA dictionary: 4,294,967,295 is more than heapdump accepts"):
        open_minidump(write_dump(bytes(data), "a.zip"))


@pytest.mark.parametrize("is_64", [False, True])
def test_max_zip_directory_bytes_bounds_the_list_of_members(write_dump, is_64: bool) -> None:
    data = zipped(zipfile.ZIP_DEFLATED)
    end = data.rindex(b"PK\x05\x06")
    if is_64:
        record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        data[end + 12 : end + 16] = b"\xff" * 4
        data[end:end] = record + locator
    else:
        data[end + 12 : end + 16] = struct.pack("<I", 1 << 30)
    with pytest.raises(HostileDump, match="bytes of the zip file's directory: 1,0"):
        open_minidump(write_dump(bytes(data), "a.zip"))


def test_bytes_before_the_dump_in_a_cabinet_have_a_limit(write_dump, monkeypatch) -> None:
    archive = cabarchive.CabArchive()
    archive["a.txt"] = cabarchive.CabFile(bytes(2 << 20))
    archive["b.dmp"] = cabarchive.CabFile(HEAD)
    data = bytes(archive.save(compress=True))
    with open_minidump(write_dump(data, "a.cab")) as dump:
        assert dump.file_bytes == len(HEAD)
    monkeypatch.setattr("heapdump.dump.limits.MAX_SKIPPED_BYTES", 1 << 20)
    with pytest.raises(HostileDump, match="bytes lie before the dump in the cabinet"):
        open_minidump(write_dump(data, "b.cab"))


@pytest.mark.parametrize(("at", "value", "words"), [(30, 3, "several parts"), (42, 3, "LZX"), (25, 9, "version 9")])
def test_cabinets_that_are_not_read_say_why(write_dump, at: int, value: int, words: str) -> None:
    archive = cabarchive.CabArchive()
    archive["b.dmp"] = cabarchive.CabFile(HEAD)
    data = bytearray(archive.save(compress=True))
    data[at] = value
    with pytest.raises(DumpError, match=words):
        open_minidump(write_dump(bytes(data), "a.cab"))
