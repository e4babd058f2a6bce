"""The Windows version: the build, which decides about layouts, and its witness.

Order of trust (measured on real dumps): ntdll's file version, the PEB, the SystemInfo stream. The first two numbers
of ntdll's version are wrong in about a third of the dumps, its build and revision are right; SystemInfo says 22631
where ntdll says 22621, or 6.2.9200 on an 18362 system.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from heapdump.dump.streams import SystemInfo


class Witness(StrEnum):
    """A source of the build, the most trusted first."""

    NTDLL = "ntdll"
    PEB = "peb"
    SYSTEM_INFORMATION = "system information"


_NAMES = {
    2195: ("2000", "2000"),
    2600: ("XP", "XP"),
    3790: ("XP x64 or Server 2003", "Server 2003"),
    6000: ("Vista", "Server 2008"),
    6001: ("Vista SP1", "Server 2008"),
    6002: ("Vista SP2", "Server 2008 SP2"),
    6003: ("Vista SP2", "Server 2008 SP2"),
    7600: ("7", "Server 2008 R2"),
    7601: ("7 SP1", "Server 2008 R2 SP1"),
    9200: ("8", "Server 2012"),
    9600: ("8.1", "Server 2012 R2"),
    10240: ("10 1507", "10 1507"),
    10586: ("10 1511", "10 1511"),
    14393: ("10 1607", "Server 2016"),
    15063: ("10 1703", "10 1703"),
    16299: ("10 1709", "Server 1709"),
    17134: ("10 1803", "Server 1803"),
    17763: ("10 1809", "Server 2019"),
    18362: ("10 1903", "Server 1903"),
    18363: ("10 1909", "Server 1909"),
    19041: ("10 2004", "Server 2004"),
    19042: ("10 20H2", "Server 20H2"),
    19043: ("10 21H1", "10 21H1"),
    19044: ("10 21H2", "10 21H2"),
    19045: ("10 22H2", "10 22H2"),
    20348: ("Server 2022", "Server 2022"),
    22000: ("11 21H2", "11 21H2"),
    22621: ("11 22H2", "11 22H2"),
    22631: ("11 23H2", "11 23H2"),
    25398: ("Server 23H2", "Server 23H2"),
    26100: ("11 24H2", "Server 2025"),
    26200: ("11 25H2", "11 25H2"),
}
"""Build → (workstation, server) product names."""


@dataclass(frozen=True, slots=True)
class WindowsVersion:
    """`build`, `revision`: of the files, they decide about layouts. `stated_build`: of the SystemInfo stream.

    `witness`: the source of `build`.
    """

    major: int
    minor: int
    build: int
    revision: int
    stated_build: int
    is_server: bool
    service_pack: str
    witness: Witness

    @property
    def number(self) -> str:
        """`10.0.17763`."""
        return f"{self.major}.{self.minor}.{self.build}"

    @property
    def name(self) -> str:
        """`Windows 10 1809 (17763.475)`, with the stated build where it differs."""
        product = _NAMES.get(self.stated_build) or _NAMES.get(self.build)
        words = f"Windows {product[self.is_server]}" if product else f"Windows {self.major}.{self.minor}"
        revision = f".{self.revision}" if self.revision else ""
        other = f", says {self.stated_build}" if self.stated_build not in (0, self.build) else ""
        return f"{words} ({self.build}{revision}{other})"


def windows_version(
    info: SystemInfo, ntdll: tuple[int, int, int, int] | None, peb: tuple[int, int, int] | None
) -> WindowsVersion:
    """The version from the best witness there is. `peb` = (major, minor, build) as the PEB has them."""
    stated_build = info.version[2]
    # SystemInfo lies to programs without a manifest (6.2.9200 on an 18362 system): believed only for known pairs
    if ntdll is not None and ntdll[2] >= 2000:
        build, revision, witness = ntdll[2], ntdll[3], Witness.NTDLL
    elif peb is not None and 2000 <= peb[2] < 0x10000:
        build, revision, witness = peb[2], 0, Witness.PEB
    else:
        build, revision, witness = stated_build, 0, Witness.SYSTEM_INFORMATION
    if (build, stated_build) not in _SAME_FILES:
        stated_build = build
    major, minor = _numbers(build, info.version[:2])
    is_server = info.product_type > 1
    return WindowsVersion(major, minor, build, revision, stated_build, is_server, info.service_pack, witness)


_SAME_FILES = {
    (18362, 18363), (19041, 19042), (19041, 19043), (19041, 19044), (19041, 19045), (22621, 22631), (26100, 26200),
}  # fmt: skip
"""(ntdll build, build that SystemInfo states) of releases that share their system files."""


def _numbers(build: int, stated_version: tuple[int, int]) -> tuple[int, int]:
    """(major, minor) of a build; `stated_version` where the build is not known."""
    if build >= 10000:
        return 10, 0
    by_build = {2195: (5, 0), 2600: (5, 1), 3790: (5, 2), 9200: (6, 2), 9600: (6, 3), 7600: (6, 1), 7601: (6, 1)}
    return by_build.get(build, (6, 0) if 6000 <= build <= 6003 else stated_version)
