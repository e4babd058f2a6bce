"""Whose blocks are: untyped buffers are counted for the object that holds them alone, or for their root."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from heapdump import cli
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke, word
from tests.process.symbols.test_rtti import image

CAMERA = {"x64": 0x7FF700000000, "x86": 0x66000000}
TID = 7


def camera(arch: HeapArch, queues: int = 3) -> tuple[bytes, dict[str, list[int]]]:
    """A global holds an array of CFrameQueue objects, each with a ring of buffers; other blocks hang on other roots.

    (the dump, addresses by name).
    """
    width = 8 if arch == "x64" else 4
    data, vtable = image(arch, CAMERA[arch], b".?AVCFrameQueue@@")
    heap = NtHeapBuilder(arch=arch, build=19041, base=0x20000000000 if arch == "x64" else 0x10000000)
    blocks: dict[str, list[int]] = {}

    def busy(name: str, size: int, *words: int) -> int:
        at = heap.busy(size, b"".join(value.to_bytes(width, "little") for value in words))
        blocks.setdefault(name, []).append(at)
        return at

    shared = busy("shared", 500)
    objects = []
    for _ in range(queues):
        buffers = [busy("buffer", 10_000) for _ in range(4)]
        objects.append(busy("queue", 48, vtable, busy("ring", 4 * width, *buffers), shared))
    array = busy("array", queues * width, *objects)
    on_stack, in_tls, lost = busy("stack", 300), busy("tls", 400), busy("lost", 600)
    process = (
        ProcessBuilder(arch=arch, build=19041).heap(heap.build()).module(CAMERA[arch], 0x8000, r"C:\acme\camera.dll")
    )
    process.memory(CAMERA[arch] + 0x1000, data)
    process.thread(TID)
    stack, teb = process.plan.stacks + 0x100000 - 0x300, process.teb(TID) + (0x1480 if arch == "x64" else 0xE10)
    roots = [
        (process.plan.exe + 0xC000 - 0xFF0, array),
        (stack, on_stack),
        (stack + 8, objects[0]),
        (teb + 4 * width, in_tls),
    ]
    assert lost
    return poke(process.build(), *((at, word(to, width)) for at, to in roots)).data, blocks


def asked(*arguments: str) -> list[dict[str, object]]:
    with redirect_stdout(StringIO()) as out:
        assert cli.run([*arguments, "--json", "-q"]) in (0, 4)
    found = json.loads(out.getvalue())["data"]
    assert isinstance(found, list)
    return found


@pytest.fixture(params=["x64", "x86"])
def dump(request, tmp_path: Path) -> str:
    path = tmp_path / "camera.dmp"
    path.write_bytes(camera(request.param)[0])
    return str(path)


@pytest.mark.parametrize("index", [[], ["--no-cache"]], ids=["index", "no index"])
def test_buffers_are_counted_for_the_class_that_holds_them(dump, index):
    for _ in range(2):
        groups = {
            group["key"]: (group["count"], group["trust"])
            for group in asked("leaks", dump, "--group-by", "owner", *index)
        }
        assert groups == {
            "held by class CFrameQueue (camera.dll), reached from app.exe!.data+0x1010": (3 + 3 + 12, "derived"),
            "held by app.exe!.data+0x1010": (2, "derived"),
            "held by the stack of thread 0": (1, "derived"),
            "held by the TEB of thread 0": (1, "derived"),
            "held by nothing that a root leads to": (1, "derived"),
        }


def test_retained_by_owner_counts_what_hangs_on_each(dump):
    rows = {row["key"]: (row["count"], row["retained_bytes"]) for row in asked("retained", dump, "--group-by", "owner")}
    count, size = rows["held by class CFrameQueue (camera.dll), reached from app.exe!.data+0x1010"]
    assert (count, int(str(size)) // 1000) == (18, 120)
    assert rows["held by app.exe!.data+0x1010"][0] == 2


def test_by_module_counts_for_the_module_that_owns_where_no_stacks_are_recorded(dump):
    rows = {row["key"]: row["count"] for row in asked("retained", dump, "--group-by", "module")}
    assert rows == {"camera.dll": 18, "app.exe": 2, "no module": 2}
    rows = {group["key"]: group["count"] for group in asked("leaks", dump, "--group-by", "owner-module")}
    assert rows == {"camera.dll": 18, "app.exe": 2, "no module": 3}


def test_refs_and_retained_name_the_type_of_every_block(tmp_path):
    data, blocks = camera("x64")
    path = tmp_path / "camera.dmp"
    path.write_bytes(data)
    with redirect_stdout(StringIO()) as out:
        cli.run(["refs", str(path), hex(blocks["buffer"][-1]), "-q"])
    text = out.getvalue()
    path_line = "app.exe!.data+0x1010 → 24-byte block +0x10 → class CFrameQueue (camera.dll) +0x8 → 32-byte block +0x18"
    assert f"from {path_line} → 9.8 kB buffer" in " ".join(text.split())
    assert f"  → {blocks['queue'][-1]:#x} class CFrameQueue (camera.dll), 48 bytes, at +0x8" in text
    with redirect_stdout(StringIO()) as out:
        cli.run(["retained", str(path), hex(blocks["ring"][-1]), "-q", "--json"])
    answer = json.loads(out.getvalue())["data"]
    assert [row["type"]["name"] for row in answer["dominators"][:1]] == ["class CFrameQueue (camera.dll)"]
    assert answer["dominators"][0]["type"]["trust"] == "derived"
