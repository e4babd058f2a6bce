"""Packed dumps: unpacked once to a temporary file that is gone afterwards."""

from __future__ import annotations

import gzip
import io
import lzma
import mmap
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any, Self

import cabarchive
import pytest
import zstandard

from heapdump import system
from heapdump.dump import open as open_
from heapdump.dump.open import open_minidump
from heapdump.errors import DumpError, HostileDump, NotAMinidump
from tests.builders import DumpBuilder
from tests.posix import HANG_UP, KILL, needs_signals
from tests.signals import as_in_a_terminal

Usage = namedtuple("Usage", "total used free")
NOISE = bytes((i * 7919 >> 5) & 0xFF for i in range(60_000))
DUMP = DumpBuilder().module(0x10000, 0x1000, "C:\\a.dll").memory(0x5000, NOISE).build().data
FORMATS = ["gz", "xz", "zst", "zip", "cab"]


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def cabinet(*members: tuple[str, bytes], compress: bool = True) -> bytes:
    archive = cabarchive.CabArchive()
    for name, data in members:
        archive[name] = cabarchive.CabFile(data)
    return bytes(archive.save(compress=compress))


def pack(kind: str, data: bytes) -> bytes:
    if kind == "gz":
        return gzip.compress(data)
    if kind == "xz":
        return lzma.compress(data)
    if kind == "zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return zipped(("a.dmp", data)) if kind == "zip" else cabinet(("a.dmp", data))


@pytest.fixture(autouse=True)
def leaves_no_file(temporary_folder):
    yield
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_packed_dump_opens_like_a_plain_one_and_cleans_up_when_closed(write_dump, temporary_folder, kind):
    said: list[str] = []
    seen: list[int] = []
    path = write_dump(pack(kind, DUMP), f"a.dmp.{kind}")
    with open_minidump(path, lambda done, total: seen.append(done), said.append) as dump:
        assert dump.path == path
        assert dump.file_bytes == len(DUMP)
        assert dump.modules[0].path == "C:\\a.dll"
        named = list(temporary_folder.iterdir())
        assert named == [] or system.IS_WINDOWS, "its file has no name: nothing is left even if this is killed"
        assert len(said) == 1 and said[0].startswith(f"unpacking {path} (")
        assert seen[-1] == len(DUMP)


@pytest.mark.parametrize("kind", FORMATS)
def test_mapping_may_move_the_position_of_the_file(write_dump, monkeypatch, kind):
    """On Windows, Python's `mmap` sets the position to 0; closing a file with bytes in its buffer failed then."""

    class Mapping(mmap.mmap):
        def __new__(cls, number: int, *arguments: Any, **options: Any) -> Self:
            os.lseek(number, 0, os.SEEK_SET)
            return super().__new__(cls, number, *arguments, **options)

    monkeypatch.setattr(mmap, "mmap", Mapping)
    monkeypatch.setattr(open_, "_HEAD_BYTES", 100)  # less than a buffer: reading these would read ahead
    with open_minidump(write_dump(pack(kind, DUMP), "crash.bin")) as dump:
        assert len(dump.modules) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_the_name_of_the_file_does_not_matter(write_dump, kind):
    with open_minidump(write_dump(pack(kind, DUMP), "crash.bin")) as dump:
        assert len(dump.modules) == 1


def test_a_plain_dump_makes_no_temporary_file_and_says_nothing(write_dump, temporary_folder):
    said: list[str] = []
    with open_minidump(write_dump(DUMP), say=said.append):
        assert said == []
        assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(DUMP[:1000]) + gzip.compress(DUMP[1000:]),
        lzma.compress(DUMP[:1000]) + lzma.compress(DUMP[1000:]),
        zstandard.compress(DUMP[:1000]) + zstandard.compress(DUMP[1000:]),
        zipped(("a.dmp", DUMP), method=zipfile.ZIP_STORED),
        zipped(("a.dmp", DUMP), method=zipfile.ZIP_LZMA),
        cabinet(("a.dmp", DUMP), compress=False),
    ],
    ids=["gzip members", "xz streams", "zstandard frames", "stored zip", "lzma zip", "stored cab"],
)
def test_other_forms_of_the_same_archives_are_read_too(write_dump, data):
    with open_minidump(write_dump(data, "a.packed")) as dump:
        assert dump.file_bytes == len(DUMP)


@pytest.mark.parametrize("make", [zipped, cabinet])
def test_the_one_dump_among_other_files_is_taken(write_dump, make):
    data = make(("readme.txt", b"hello"), ("sub/App.MDMP", DUMP), ("info.xml", b"<x/>"))
    with open_minidump(write_dump(data, "a.zip")) as dump:
        assert dump.file_bytes == len(DUMP)


@pytest.mark.parametrize("make", [zipped, cabinet])
def test_an_archive_without_a_dump_is_refused_with_its_number_of_members(write_dump, make):
    with pytest.raises(DumpError, match=r"holds no \.dmp, \.mdmp, \.hdmp file \(2 members\)"):
        open_minidump(write_dump(make(("readme.txt", b"hello"), ("b.txt", b"x"))))


def test_an_empty_zip_is_refused(write_dump):
    with pytest.raises(DumpError, match=r"holds no \.dmp.*\(0 members\)"):
        open_minidump(write_dump(zipped()))


@pytest.mark.parametrize("make", [zipped, cabinet])
def test_an_archive_with_several_dumps_is_refused_with_their_names(write_dump, make):
    members = [(f"{i}.dmp", DUMP) for i in range(4)]
    with pytest.raises(DumpError, match=r"holds 4 dumps \('0.dmp', '1.dmp', '2.dmp', …\); unpack the one you want"):
        open_minidump(write_dump(make(*members)))


def test_no_path_of_an_archive_is_ever_used(write_dump, temporary_folder):
    with open_minidump(write_dump(zipped(("../../../evil.dmp", DUMP)))):
        assert not any("evil" in path.name for path in temporary_folder.iterdir())
    assert not (temporary_folder.parent / "evil.dmp").exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("content", [b"this is only text\n" * 20, bytes(100), b"MZ" + bytes(500)])
def test_packed_content_that_is_no_dump_is_refused_by_name(write_dump, kind, content):
    with pytest.raises(NotAMinidump, match=r"what is packed inside is (a text|not a dump|a Windows program)"):
        open_minidump(write_dump(pack(kind, content), f"a.{kind}"))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_file_inside_is_a_dump_error(write_dump, kind):
    with pytest.raises(DumpError, match=r"what is packed inside is empty|cabinet cannot be unpacked"):
        open_minidump(write_dump(pack(kind, b""), f"a.{kind}"))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_an_archive_cut_short_is_an_error_that_says_so(write_dump, kind, keep):
    """Also where some of the dump has come out by then: half a dump must not pass for a whole one."""
    data = pack(kind, DUMP + random.Random(1).randbytes(500_000))
    path = write_dump(data[: int(len(data) * keep)], f"a.{kind}")
    with pytest.raises(DumpError, match="cannot be unpacked"), open_minidump(path):
        pass


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_packed_data_is_a_dump_error_or_reads_as_written(write_dump, kind):
    """Wherever one byte is wrong: an error of ours, or a byte that does not matter."""
    data = pack(kind, DUMP[:8000])
    refused = 0
    for at in range(8, len(data), max(1, len(data) // 60)):
        path = write_dump(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :], f"a.{kind}")
        try:
            with open_minidump(path) as dump:
                assert dump.file_bytes >= 32
        except DumpError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 10


@pytest.mark.parametrize("kind", FORMATS)
def test_a_few_bytes_behind_the_magic_are_a_dump_error(write_dump, kind):
    data = pack(kind, DUMP)
    for size in (6, 7, 10, 20, 36):
        with pytest.raises(DumpError):
            open_minidump(write_dump(data[:size], f"a.{kind}"))


def test_an_encrypted_zip_is_an_error_that_says_so(write_dump):
    data = bytearray(zipped(("a.dmp", DUMP)))
    data[6] |= 1  # the local header's flag
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    with pytest.raises(DumpError, match=r"cannot be unpacked: .*(password|encrypted)"):
        open_minidump(write_dump(bytes(data)))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_is_a_clear_error(write_dump, monkeypatch, kind):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1 << 40, 1 << 40, 100_000))
    with pytest.raises(HostileDump, match=r"disk of .* is nearly full; point TMPDIR"):
        open_minidump(write_dump(pack(kind, DUMP), f"a.{kind}"))


def test_a_bomb_inside_a_zip_stops_whatever_size_its_directory_states(write_dump, monkeypatch):
    monkeypatch.setattr("heapdump.dump.limits.MIN_EXPANSION_BYTES", 1 << 20)
    monkeypatch.setattr("heapdump.dump.limits.MAX_EXPANSION", 10)
    bomb = zipped(("a.dmp", DUMP + bytes(30 << 20)))
    with pytest.raises(HostileDump, match="stopped; unpack it yourself if you trust it"):
        open_minidump(write_dump(bomb))


def test_an_unsupported_dump_inside_leaves_no_file(write_dump):
    with pytest.raises(DumpError, match="arm64"):
        open_minidump(write_dump(gzip.compress(DumpBuilder(arch="arm64").build().data)))


def test_an_interruption_while_unpacking_leaves_no_file(write_dump):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_minidump(write_dump(gzip.compress(DUMP)), interrupt)


def test_closing_twice_is_no_error(write_dump):
    dump = open_minidump(write_dump(gzip.compress(DUMP)))
    dump.close()
    dump.close()


@needs_signals
@pytest.mark.parametrize("number", [KILL, signal.SIGTERM, HANG_UP])
@pytest.mark.parametrize("moment", ["unpacking", "open"])
def test_a_killed_process_leaves_no_file(write_dump, temporary_folder, tmp_path, number, moment):
    """The unpacked memory of a customer must not stay in the temporary folder, nor a half-written index."""
    path = write_dump(gzip.compress(DUMP), "a.dmp.gz")
    wait = f"open({str(tmp_path / 'ready')!r}, 'w').close(); time.sleep(60)"
    patch = {
        "unpacking": "import heapdump.dump.unpack as m\nm._copy = wait",
        "open": "import heapdump.snapshot as m\nm.Snapshot.heaps = property(wait)",
    }[moment]
    code = f"import time, sys\ndef wait(*_):\n    {wait}\n{patch}\nfrom heapdump.cli import main\nmain()"
    variables = os.environ | {"TMPDIR": str(temporary_folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code, "heaps", str(path)],
        env=variables,
        stderr=subprocess.PIPE,
        preexec_fn=as_in_a_terminal,
    ) as child:
        while not (tmp_path / "ready").exists() and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    assert child.returncode == (-number if number == KILL else 128 + number), err
    assert list(temporary_folder.iterdir()) == []


def test_windows_deletes_what_a_crash_of_the_system_left(temporary_folder, monkeypatch):
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    names = ("heapdump-unpacked-old.tmp", "heapdump-unpacked-new.tmp", "heapdump-crash.tmp")
    for name in names:
        (temporary_folder / name).write_bytes(b"x")
        if "new" not in name:
            os.utime(temporary_folder / name, (1e9, 1e9))
    with system.temporary_file("heapdump-unpacked-"):
        pass
    assert sorted(path.name for path in temporary_folder.iterdir()) == [
        "heapdump-crash.tmp",
        "heapdump-unpacked-new.tmp",
    ]
    for name in names:
        (temporary_folder / name).unlink(missing_ok=True)
