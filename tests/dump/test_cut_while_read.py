"""A dump that is cut short or written to while it is read: one line, no signal, and no answer that looks whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import heapdump
from heapdump import page_guard, system
from heapdump.cli import run
from heapdump.errors import DumpError, TruncatedDump
from tests.builders import NtHeapBuilder, ProcessBuilder

ROOT = Path(__file__).parents[2]
guarded = pytest.mark.skipif(page_guard._handler is None, reason="no guard on this system")


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    heap = NtHeapBuilder(base=0x20000000000)
    for i in range(1500):
        heap.busy(16 + i % 200)
    heap.virtual(0x20010000000, 3_000_000)
    ProcessBuilder().heap(heap.build()).thread(7, ip=0x20000000800).write(tmp_path / "crash.dmp")
    return tmp_path / "crash.dmp"


STEPS = """
import os, sys
import heapdump
from heapdump.errors import TruncatedDump
path, step, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
def cut(): os.truncate(path, size)
with heapdump.open_dump(path) as snapshot:
    steps = {
        "process": lambda: snapshot.process, "heaps": lambda: snapshot.heaps, "walk": lambda: snapshot.walk.table,
        "damage": lambda: snapshot.damage, "graph": lambda: snapshot.graph,
        "view": lambda: bytes(view), "array": lambda: int(words.sum()),
    }
    for name, run in steps.items():
        if name == "view":
            view = snapshot.dump.view_at(0, snapshot.dump.file_bytes)
            words = snapshot.process.space.mapped.file_words(0)
        if name == step:
            cut()
        try:
            run()
        except TruncatedDump as error:
            print("refused:", error)
            break
    try:
        snapshot.dump.require_whole()
    except TruncatedDump as error:
        print("cut:", error)
print("survived")
"""


@guarded
@pytest.mark.parametrize(
    ("step", "size"),
    [
        ("process", 0),
        ("heaps", 5000),
        ("walk", 0),
        ("walk", 1_000_000),
        ("damage", 0),
        ("graph", 5000),
        ("view", 5000),
        ("array", 0),
    ],
)
def test_no_step_ends_the_process(dump: Path, step: str, size: int) -> None:
    command = [sys.executable, "-c", STEPS, str(dump), step, str(size)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "survived"
    assert "crash.dmp was cut short while it was read" in done.stdout
    assert f"now {size:,}" in done.stdout


@guarded
@pytest.mark.parametrize("delay", [0.2, 0.4, 0.8])
@pytest.mark.parametrize("command", ["check", "summary -o out.txt"])
def test_a_command_whose_dump_is_cut_ends_with_one_line(dump: Path, delay: float, command: str) -> None:
    name, *options = command.split()
    arguments = [sys.executable, "-m", "heapdump", name, str(dump), *options]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "HEAPDUMP_CACHE": str(dump.parent / "cache")}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, cwd=dump.parent
    ) as child:
        time.sleep(delay)
        os.truncate(dump, dump.stat().st_size // 3)
        _, err = child.communicate(timeout=120)
    assert child.returncode in (0, 3, 4), err  # before it was opened, while it was read, or behind its end
    assert "Traceback" not in err and "defect" not in err
    if child.returncode == 3:
        assert err.count(": error: ") == 1
        assert not (dump.parent / "out.txt").exists()


@guarded
def test_a_cut_dump_leaves_no_index(dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    with heapdump.open_dump(dump) as snapshot:
        assert snapshot.heaps
        os.truncate(dump, 100_000)
        with pytest.raises(TruncatedDump):
            assert snapshot.walk.table
    assert list((tmp_path / "cache").rglob("manifest.json")) == []


@guarded
def test_a_page_that_could_not_be_read_for_a_time_is_remembered(dump: Path) -> None:
    content = dump.read_bytes()
    with heapdump.open_dump(dump) as snapshot:
        view = snapshot.dump.view_at(0, snapshot.dump.file_bytes)
        os.truncate(dump, 4096)
        assert bytes(view[-4096:]) == bytes(4096)
        with dump.open("r+b") as file:
            file.write(content)
        with pytest.raises(TruncatedDump, match="a part of the file could not be read"):
            snapshot.dump.require_whole()
        view.release()


@guarded
def test_the_handler_of_others_is_there_again_afterwards(dump: Path) -> None:
    code = (
        "import ctypes, faulthandler, heapdump, mmap, os, sys\n"
        "faulthandler.enable()\n"
        "with heapdump.open_dump(sys.argv[1]): pass\n"
        "assert not heapdump.page_guard._GUARDS\n"
        "f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); os.truncate(sys.argv[1], 0); m[0]\n"
    )
    command = [sys.executable, "-c", code, str(dump)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode < 0
    assert "Fatal Python error: Bus error" in done.stderr


@guarded
def test_a_fault_elsewhere_is_left_to_the_handler_of_others(dump: Path) -> None:
    code = (
        "import faulthandler, heapdump, mmap, os, sys\n"
        "faulthandler.enable()\n"
        "with heapdump.open_dump(sys.argv[1]):\n"
        "    f = open('other', 'w+b'); f.write(bytes(9000)); f.flush()\n"
        "    m = mmap.mmap(f.fileno(), 0); os.truncate('other', 0); m[5000]\n"
    )
    command = [sys.executable, "-c", code, str(dump)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=dump.parent, env=variables
    )
    assert done.returncode < 0
    assert "Fatal Python error: Bus error" in done.stderr


@pytest.mark.skipif(system.IS_WINDOWS, reason="a mapped file cannot be cut there")
def test_without_a_guard_the_size_is_watched(dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_guard, "_handler", None)
    with heapdump.open_dump(dump) as snapshot:
        os.truncate(dump, 5000)
        for read in (lambda: snapshot.dump.view_at(0, 8), lambda: snapshot.dump.read_at(6000, 8)):
            with pytest.raises(TruncatedDump, match="cut short while it was read"):
                read()


def test_a_dump_that_grows_while_it_is_read_is_an_incomplete_answer(
    dump: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = system.reader

    def reader(file, data):
        with dump.open("ab") as more:
            more.write(b"more")
        return real(file, data)

    monkeypatch.setattr(system, "reader", reader)
    assert run(["heaps", str(dump), "--json", "--no-cache"]) == 4
    out, err = capfd.readouterr()
    assert '"complete": false' in out
    assert "crash.dmp was written to while it was read" in out and "was written to" in err


def test_a_disk_that_fails_is_one_line(dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(size: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(system, "reader", lambda file, data: fail)
    with heapdump.open_dump(dump) as snapshot, pytest.raises(DumpError, match="cannot be read any more: Input"):
        assert snapshot.heaps
