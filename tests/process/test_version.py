"""Which Windows it is: ntdll first, then the PEB, then the system information; known lies are seen through."""

from __future__ import annotations

import pytest

from heapdump.dump.streams import SystemInfo
from heapdump.process.version import windows_version
from tests.builders import DumpBuilder, ProcessBuilder
from tests.patching import without_memory


def info(major: int, minor: int, build: int, product: int = 1) -> SystemInfo:
    return SystemInfo(9, 4, product, (major, minor, build), 2, "")


@pytest.mark.parametrize(
    ("written", "ntdll", "build", "revision", "stated_build", "name"),
    [
        ((10, 0, 22631), (10, 0, 22621, 3447), 22621, 3447, 22631, "Windows 11 23H2 (22621.3447, says 22631)"),
        ((10, 0, 26200), (10, 0, 26100, 1), 26100, 1, 26200, "Windows 11 25H2 (26100.1, says 26200)"),
        ((10, 0, 19045), (10, 0, 19041, 508), 19041, 508, 19045, "Windows 10 22H2 (19041.508, says 19045)"),
        ((10, 0, 18363), (10, 0, 18362, 1), 18362, 1, 18363, "Windows 10 1909 (18362.1, says 18363)"),
        ((6, 2, 9200), (6, 2, 18362, 900), 18362, 900, 18362, "Windows 10 1903 (18362.900)"),
        ((6, 2, 9200), (10, 0, 19041, 1), 19041, 1, 19041, "Windows 10 2004 (19041.1)"),
        ((6, 1, 7601), (6, 1, 7601, 19135), 7601, 19135, 7601, "Windows 7 SP1 (7601.19135)"),
        ((5, 1, 2600), (5, 1, 2600, 5512), 2600, 5512, 2600, "Windows XP (2600.5512)"),
    ],
)
def test_ntdll_tells_the_build_and_the_stated_one_is_kept_for_releases_with_the_same_files(
    written, ntdll, build, revision, stated_build, name
):
    found = windows_version(info(*written), ntdll, (10, 0, 12345))
    assert (found.build, found.revision, found.stated_build, found.witness) == (build, revision, stated_build, "ntdll")
    assert found.name == name


def test_the_first_two_numbers_come_from_the_build_not_from_ntdll():
    found = windows_version(info(6, 2, 9200), (6, 2, 19041, 508), None)
    assert (found.major, found.minor, found.number) == (10, 0, "10.0.19041")
    assert windows_version(info(10, 0, 1), (10, 0, 7601, 1), None).number == "6.1.7601"


def test_without_ntdll_the_peb_tells_the_build():
    found = windows_version(info(6, 2, 9200), None, (10, 0, 19041))
    assert (found.build, found.revision, found.witness) == (19041, 0, "peb")
    found = windows_version(info(10, 0, 19041), (0, 0, 0, 0), (10, 0, 17763))
    assert (found.build, found.witness) == (17763, "peb")


@pytest.mark.parametrize("peb", [None, (0, 0, 0), (1, 2, 1999)])
def test_without_ntdll_and_peb_the_system_information_is_all_there_is(peb):
    found = windows_version(info(10, 0, 19045), None, peb)
    assert (found.build, found.revision, found.stated_build, found.witness) == (19045, 0, 19045, "system information")


def test_a_server_is_named_as_one():
    assert windows_version(info(10, 0, 17763, 3), (10, 0, 17763, 475), None).name == "Windows Server 2019 (17763.475)"
    assert windows_version(info(10, 0, 17763, 2), None, None).is_server


def test_an_unknown_build_is_named_by_its_numbers():
    found = windows_version(info(10, 0, 31337), (10, 0, 31337, 7), None)
    assert found.name == "Windows 10.0 (31337.7)"
    assert windows_version(info(5, 9, 3000), None, None).number == "5.9.3000"


def versions_of(open_built, process: ProcessBuilder, written: tuple[int, int, int] | None = None):
    if written:
        process.dump.os = written
    with open_built(process.build()) as snapshot:
        return snapshot.process.windows


def test_a_process_takes_the_build_from_the_ntdll_of_its_module_list(open_built):
    found = versions_of(open_built, ProcessBuilder(build=22621, revision=3447), (10, 0, 22631))
    assert (found.build, found.revision, found.stated_build, found.witness) == (22621, 3447, 22631, "ntdll")


def test_a_process_whose_ntdll_has_no_version_takes_the_build_from_its_peb(open_built):
    process = ProcessBuilder(build=19041)
    process.module(process.plan.ntdll, 0x1F5000, "C:\\Windows\\System32\\ntdll.dll", version=None)
    found = versions_of(open_built, process, (6, 2, 9200))
    assert (found.build, found.witness, found.stated_build) == (19041, "peb", 19041)


def test_a_process_without_peb_and_version_takes_the_stated_build(open_built):
    process = ProcessBuilder(build=17763)
    process.module(process.plan.ntdll, 0x1F5000, "C:\\Windows\\System32\\ntdll.dll", version=None)
    built = process.build()
    with open_built(without_memory(built, (process.plan.peb, process.plan.peb + 0x1000))) as snapshot:
        found = snapshot.process.windows
        assert (found.build, found.witness) == (17763, "system information")


def test_a_module_that_only_ends_like_ntdll_tells_nothing(open_built):
    builder = DumpBuilder(os=(10, 0, 19041)).thread(4, 0x5000)
    builder.module(0x10000, 0x1000, "C:\\my_ntdll.dll", version=(1, 0, 9999, 0))
    builder.module(0x20000, 0x1000, "c:/windows/system32/NTDLL.DLL", version=(10, 0, 17763, 475))
    with open_built(builder.build()) as snapshot:
        assert snapshot.process.windows.build == 17763
