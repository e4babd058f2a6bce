"""What memory is left, from files and limits of each system; and that shortage ends a command with a line."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heapdump import available_memory, large_arrays, memory_plan, system
from heapdump.available_memory import Available, is_shortage
from tests.samples import SAMPLES

MEMINFO = "MemTotal:       32000000 kB\nMemAvailable:   20000000 kB\n"
MB = 1 << 20


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders in the place of /proc and /sys/fs/cgroup; no limits of the process."""
    monkeypatch.setattr(available_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(available_memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(available_memory, "_process_limits", lambda: iter(()))
    monkeypatch.setattr(system, "IS_WINDOWS", False)
    write(tmp_path, {"proc/meminfo": MEMINFO})
    return tmp_path


def write(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_limits_the_machine_decides(files: Path) -> None:
    assert available_memory.available_memory() == Available(20_000_000 << 10, "this machine")


def test_the_tightest_group_of_version_2_decides(files: Path) -> None:
    write(files, {
        "proc/self/cgroup": "0::/outer/inner\n",
        "groups/outer/memory.max": f"{900 * MB}\n", "groups/outer/memory.current": f"{700 * MB}\n",
        "groups/outer/memory.stat": f"anon 5\ninactive_file {80 * MB}\nactive_file {20 * MB}\n",
        "groups/outer/inner/memory.max": "max\n", "groups/outer/inner/memory.current": "5\n",
    })  # fmt: skip
    assert available_memory.available_memory() == Available(300 * MB, "its control group")


def test_a_group_of_version_1_decides_also_inside_a_container(files: Path) -> None:
    write(files, {
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/abc\n",
        "groups/memory/memory.limit_in_bytes": f"{512 * MB}\n", "groups/memory/memory.usage_in_bytes": f"{500 * MB}\n",
        "groups/memory/memory.stat": f"cache 7\ntotal_inactive_file {100 * MB}\n",
    })  # fmt: skip
    assert available_memory.available_memory() == Available(112 * MB, "its control group")


def test_no_limit_of_version_1_is_a_large_number(files: Path) -> None:
    write(files, {
        "proc/self/cgroup": "4:memory:/\n", "groups/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "groups/memory/memory.usage_in_bytes": "5\n",
    })  # fmt: skip
    assert available_memory.available_memory() == Available(20_000_000 << 10, "this machine")


class Kernel32:
    """The two calls, filled in by hand from the declarations of the Windows SDK."""

    def GlobalMemoryStatusEx(self, status: Any) -> int:
        assert read(status, 0, 4) == 64
        poke(status, 16, 3000 * MB, 8)  # ullAvailPhys
        poke(status, 32, 2000 * MB, 8)  # ullAvailPageFile
        return 1

    def QueryInformationJobObject(self, job: None, kind: int, out: Any, size: int, written: None) -> int:
        assert (job, kind, size) == (None, 9, 144)
        poke(out, 16, 0x200, 4)  # LimitFlags
        poke(out, 120, 900 * MB, 8)  # JobMemoryLimit
        poke(out, 128, 100 * MB, 8)  # PeakProcessMemoryUsed
        return 1


def read(memory: Any, offset: int, size: int) -> int:
    return int.from_bytes(ctypes.string_at(ctypes.addressof(memory) + offset, size), "little")


def poke(memory: Any, offset: int, value: int, size: int) -> None:
    ctypes.memmove(ctypes.addressof(memory) + offset, value.to_bytes(size, "little"), size)


def test_windows_tells_commit_and_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    monkeypatch.setattr(ctypes, "windll", type("Libraries", (), {"kernel32": Kernel32()}), raising=False)
    assert list(available_memory._windows()) == [Available(2000 * MB, "this machine"), Available(800 * MB, "its job")]


@pytest.mark.parametrize("error", [
    MemoryError(), OSError(errno.ENOMEM, "x"), RuntimeError("can't start new thread"),
    ImportError("libx.so: failed to map segment from shared object"),
])  # fmt: skip
def test_shortage_has_many_words(error: Exception) -> None:
    assert is_shortage(error)
    assert not is_shortage(OSError(errno.ENOSPC, "x")) and not is_shortage(RuntimeError("x"))


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is said to the user, while 1 GB of memory is left."""
    monkeypatch.setattr(memory_plan, "available_memory", lambda: Available(1 << 30, "this machine"))
    lines: list[str] = []
    with memory_plan.planned(lines.append, lambda: tmp_path / "arrays"):
        yield lines
    assert large_arrays.empty(MB, np.int64).base is None


def test_what_fits_is_not_talked_about(said: list[str]) -> None:
    memory_plan.before("the walk", 500 * MB)
    assert not said


def test_what_does_not_fit_goes_to_files(said: list[str], tmp_path: Path) -> None:
    memory_plan.before("the walk", 1000 * MB)
    memory_plan.before("the pointer graph", 2000 * MB)
    assert said == [
        f"the walk may need 1.133 GB of memory, this machine leaves 1 GB: large arrays lie in files in {tmp_path / 'arrays'}"
        " meanwhile"
    ]
    assert large_arrays.zeros(MB, np.int64).base is not None


def test_files_do_not_help_where_they_count_too(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: Available(MB, "ulimit -v", counts_files=True))
    memory_plan.before("the walk", 1000 * MB)
    assert said == [
        "the walk may need 1.133 GB of memory, ulimit -v leaves 1 MB: if that does not suffice, raise the limit"
    ]


LIMITED = """
import resource, sys
import heapdump.kernels as kernels
kernels.WORTH_COMPILING = 0  # small as the dump is, machine code is asked for
resource.setrlimit(resource.{limit}, ({bytes}, {bytes}))
from heapdump.cli import main
main()
"""


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
@pytest.mark.parametrize("megabytes", [60, 110, 150, 180, 260, 400])
def test_a_command_without_enough_memory_says_so_in_a_line(limit: str, megabytes: int, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system has no limits of this kind")
    if not sys.platform.startswith("linux"):
        pytest.skip("limits of memory are not kept by this system")
    SAMPLES["service"](tmp_path / "a.dmp")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(limit=limit, bytes=megabytes * MB), "triage", str(tmp_path / "a.dmp"), "--no-cache"],
        capture_output=True, text=True, check=False, env=os.environ | {"HEAPDUMP_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr and "defect" not in done.stderr
    assert done.stderr.count("not enough memory") <= 1
    assert done.stdout.startswith("imagesvc.exe") or "not enough memory" in done.stderr
