"""The exact output of every command, at 80 and at 160 columns and as JSON, for one built process.

`make golden` rewrites the files in `expected/`; read their diff before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heapdump.cli import run
from tests.builders import NtHeapBuilder, ProcessBuilder

EXPECTED = Path(__file__).parent / "expected"
COMMANDS = {
    "summary": ["summary"],
    "heaps": ["heaps"],
    "heaps-explain": ["heaps", "--explain"],
    "regions": ["regions", "--limit", "12"],
    "regions-heap": ["regions", "--usage", "heap", "--all"],
    "modules-verbose": ["modules", "--verbose"],
    "threads": ["threads"],
    "info": ["info"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dumps `service.dmp` (x64, full memory) and `wow64.dmp`."""
    where = tmp_path_factory.mktemp("golden")
    process = ProcessBuilder(build=19041, revision=508, exe="C:\\Service\\imagesvc.exe")
    main = NtHeapBuilder(base=0x28A65B00000, flags=0x2, seed=1, lock_collisions=7)
    for i in range(300):
        main.busy(16 + i % 200)
        if i % 7 == 0:
            main.free(5)
    main.uncommitted(0x4000)
    main.busy(3000)
    images = NtHeapBuilder(base=0x28A66000000, flags=0x1002, seed=2, index=1)
    images.busy(64)
    for i in range(12):
        images.virtual(0x28A70000000 + i * 0x400000, 3_200_000 + i * 4096)
    process.heap(main.build()).heap(images.build())
    process.heap_handle(0x28A7F000000)
    process.thread(0x1B3C, ip=0x7FF6F1780010, name="Main\x1b[31m")
    process.thread(0x1B40, ip=0x7FF6F1780020)
    process.exception(0x1B40, 0xC0000005, 0x7FF6F1780020, (1, 0x28A7FF00010))
    process.write(where / "service.dmp")
    wow64 = ProcessBuilder(arch="wow64", build=7601, exe="C:\\Old\\tool32.exe")
    wow64.heap(NtHeapBuilder(arch="x64", build=7601, base=0x500000, flags=0x2, seed=3).build())
    narrow = NtHeapBuilder(arch="x86", build=7601, base=0x700000, flags=0x2, seed=4)
    narrow.busy(100)
    narrow.virtual(0x3000000, 0xD3D28)
    wow64.heap(narrow.build())
    wow64.write(where / "wow64.dmp")
    return where


def output(
    folder: Path, dump: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.chdir(folder)
    code = run([*arguments, dump, "--color", "never"])
    captured = capfd.readouterr()
    return f"{captured.out}-- stderr, exit {code}\n{captured.err}"


def check(name: str, text: str) -> None:
    path = EXPECTED / name
    if os.environ.get("HEAPDUMP_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.golden
@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", COMMANDS)
def test_table(
    name: str, width: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = output(folder, "service.dmp", COMMANDS[name], monkeypatch, capfd)
    assert max(len(line) for line in text.partition("-- stderr")[0].splitlines()) <= width
    check(f"{name}-{width}.txt", text)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["summary", "heaps", "regions", "modules", "threads", "info"])
def test_json(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [name, "--at", "0x28a65b00000"] if name == "regions" else [name]
    check(f"{name}.json", output(folder, "service.dmp", [*arguments, "--json"], monkeypatch, capfd))


@pytest.mark.golden
@pytest.mark.parametrize("name", ["summary", "heaps", "threads"])
def test_wow64(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    check(f"{name}-wow64.txt", output(folder, "wow64.dmp", [name], monkeypatch, capfd))
