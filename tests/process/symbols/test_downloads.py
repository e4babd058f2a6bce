"""Downloads that break off: gone on with where they stopped, begun again where the server has another version."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cabarchive
import pytest

from heapdump.dump.streams import PdbId
from heapdump.process.symbols import downloads
from heapdump.process.symbols.downloads import part_of
from heapdump.process.symbols.pdb import source_of
from heapdump.process.symbols.store import SymbolStores
from tests.builders.pdb import FrameStreams, TypeStream, pdb
from tests.loopback import Site
from tests.posix import needs_links, needs_modes

GUID, AGE = bytes(range(16)), 11
ID = PdbId(r"C:\build\App.pdb", "03020100050407060809" + "0A0B0C0D0E0F", AGE)
KEY = f"{ID.guid}B"
FILE = pdb(TypeStream().build(), GUID, AGE, FrameStreams())
NAME = f"App.pdb/{KEY}/App.pdb"
HALF = len(FILE) // 2


def cabinet(data: bytes) -> bytes:
    archive = cabarchive.CabArchive()
    archive["app.pdb"] = cabarchive.CabFile(data)
    return bytes(archive.save(False))


def fetched(site: Site, folder: Path, notes: list[str] | None = None) -> bytes | None:
    """The bytes of the file in the store after it was asked for."""
    source_of(SymbolStores(f"srv*{folder}*{site.url}", notes), ID)
    kept = folder / "App.pdb" / KEY / "App.pdb"
    return kept.read_bytes() if kept.is_file() else None


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(".heapdump-*"))


@pytest.fixture
def broken(site: Site, tmp_path: Path) -> Site:
    """A server whose file has come to one half: every further connection broke, too."""
    site.answers[NAME] = FILE
    site.tag = '"7"'
    site.breaks[NAME] = [HALF, *[0] * 9]
    assert fetched(site, tmp_path) is None
    assert [path.stat().st_size for path in parts(tmp_path)] == [HALF]
    site.breaks.clear()
    site.ranges.clear()
    return site


def test_a_connection_that_breaks_is_opened_again(site, tmp_path):
    site.answers[NAME], site.tag, site.breaks[NAME] = FILE, '"7"', [1000, 1000, 1000]
    assert fetched(site, tmp_path) == FILE
    assert site.ranges == [(None, None), *((f"bytes={size}-", '"7"') for size in (1000, 2000, 3000))]
    assert not parts(tmp_path)


def test_the_next_call_goes_on(broken, tmp_path):
    assert fetched(broken, tmp_path) == FILE
    assert broken.ranges == [(f"bytes={HALF}-", '"7"')] and not parts(tmp_path)


def test_another_version_is_begun_again(broken, tmp_path):
    broken.tag = '"8"'
    assert fetched(broken, tmp_path) == FILE
    assert broken.ranges == [(f"bytes={HALF}-", '"7"')] and not parts(tmp_path)


def test_a_server_without_ranges_is_begun_again(broken, tmp_path):
    broken.takes_ranges = False
    assert fetched(broken, tmp_path) == FILE and not parts(tmp_path)


def test_what_was_complete_is_taken(broken, tmp_path):
    (part,) = parts(tmp_path)
    part.write_bytes(FILE)
    assert fetched(broken, tmp_path) == FILE and len(broken.ranges) == 1


def test_more_than_the_server_has_is_begun_again(broken, tmp_path):
    (part,) = parts(tmp_path)
    part.write_bytes(FILE + b"more")
    assert fetched(broken, tmp_path) == FILE and not parts(tmp_path)


@pytest.mark.parametrize("tag", [None, 'W/"7"', '"' + "7" * 100 + '"'])
def test_without_a_strong_validator_nothing_is_left(site, tmp_path, tag):
    site.answers[NAME], site.tag, site.breaks[NAME] = FILE, tag, [HALF]
    assert fetched(site, tmp_path) is None and not parts(tmp_path)


def test_a_time_of_modification_is_one(site, tmp_path):
    site.answers[NAME], site.breaks[NAME] = FILE, [HALF]
    site.modified = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert fetched(site, tmp_path) == FILE
    assert site.ranges[1] == (f"bytes={HALF}-", site.modified)


def test_a_cabinet_goes_on_too(site, tmp_path):
    packed, name = cabinet(FILE), f"{NAME[:-1]}_"
    site.answers[name], site.tag, site.breaks[name] = packed, '"7"', [HALF, *[0] * 9]
    assert fetched(site, tmp_path) is None and len(parts(tmp_path)) == 1
    site.breaks.clear()
    assert fetched(site, tmp_path) == FILE
    assert site.ranges[-1] == (f"bytes={HALF}-", '"7"') and not parts(tmp_path)


def test_what_a_killed_process_left_is_taken_after_some_minutes(broken, tmp_path):
    (part,) = parts(tmp_path)
    word = part.name.split("-")[2]
    held = part.rename(part.with_name(part.name.replace(f"-{word}-", "-0123456789abcdef-")))
    with part_of(tmp_path, "http://other/"):
        assert held.is_file()
    assert fetched(broken, tmp_path) == FILE and broken.ranges == [(None, None)]  # somebody may be writing to it
    (tmp_path / "App.pdb" / KEY / "App.pdb").unlink()
    before = time.time() - downloads._ABANDONED_SECONDS - 1
    os.utime(held, (before, before))
    assert fetched(broken, tmp_path) == FILE and broken.ranges[1:] == [(f"bytes={HALF}-", '"7"')]
    assert not parts(tmp_path)


@needs_modes
@needs_links
@pytest.mark.parametrize("kind", ["link", "second name"])
def test_a_part_that_leads_elsewhere_is_not_written_to(broken, tmp_path, kind):
    (part,) = parts(tmp_path)
    other = tmp_path / "other"
    part.rename(other)
    before = other.read_bytes()
    if kind == "link":
        part.symlink_to(other)
    else:
        part.hardlink_to(other)
    assert fetched(broken, tmp_path) == FILE and broken.ranges == [(None, None)]
    assert other.read_bytes() == before and not parts(tmp_path)


def test_too_much_is_not_left(site, tmp_path, monkeypatch):
    from heapdump.process.symbols import symbol_server

    monkeypatch.setattr(symbol_server, "MAX_FILE_BYTES", HALF)
    site.answers[NAME], site.tag = FILE, '"7"'
    notes: list[str] = []
    assert fetched(site, tmp_path, notes) is None and not parts(tmp_path)
    assert "more than" in notes[0]
