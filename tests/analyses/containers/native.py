"""Real containers: a program is compiled and run, and its blocks are laid out in a heap of Windows.

The program gets its memory from one region, with a gap behind each block, and writes its blocks at the end. Each word
that leads into one of them, or right behind it, is moved with it.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import poke

CXX = r"""
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <sys/mman.h>
#include <unordered_map>
#include <unordered_set>
#include <vector>

static char *g_next;
static struct { char *at; size_t size; } g_blocks[1 << 16];
static int g_many;
static bool g_quiet;
static void *take(size_t size) {
    if (!g_next) g_next = (char *)mmap((void *)0x500000000000, 1 << 26, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    char *at = g_next;
    g_next += (size + 15) / 16 * 16 + 32;
    memset(at, 0xA5, size);
    g_blocks[g_many++] = {at, size};
    return at;
}
void *operator new(size_t size) { return g_quiet ? malloc(size) : take(size); }
void operator delete(void *at) noexcept { for (int i = g_many - 1; i >= 0; i--) if (g_blocks[i].at == at) g_blocks[i].at = 0; }
void operator delete(void *at, size_t) noexcept { operator delete(at); }
static std::string *g_truth;
static void holds(const void *owner, const void *member, const char *kind, size_t count) {
    g_quiet = true;
    char line[200];
    snprintf(line, 200, "T %llx %d %zu %s\n", (unsigned long long)(uintptr_t)owner, (int)((char *)member - (char *)owner), count, kind);
    if (!g_truth) g_truth = new std::string;
    *g_truth += line;
    g_quiet = false;
}
static void finish() {
    g_quiet = true;
    fputs(g_truth->c_str(), stdout);
    for (int i = 0; i < g_many; i++) if (g_blocks[i].at) {
        printf("B %llx ", (unsigned long long)(uintptr_t)g_blocks[i].at);
        for (size_t k = 0; k < g_blocks[i].size; k++) printf("%02x", (unsigned char)g_blocks[i].at[k]);
        puts("");
    }
}
"""


@dataclass
class Captured:
    """What a program wrote: its blocks, and (address of the owner, offset, kind, elements) of its containers."""

    blocks: dict[int, bytes] = field(default_factory=dict)
    truth: list[tuple[int, int, str, int]] = field(default_factory=list)


def compiled(folder: Path, source: str, compiler: list[str], suffix: str) -> Captured:
    """The output of a program, compiled and run. Skips the test where that is not possible here."""
    if not sys.platform.startswith("linux") or shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not here")
    path = folder / f"program{suffix}"
    path.write_text(source)
    made = subprocess.run([*compiler, str(path), "-o", str(folder / "program")], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"{compiler[0]} does not compile here")
    text = subprocess.run([folder / "program"], capture_output=True, check=True).stdout.decode()
    out = Captured()
    for kind, address, *rest in (line.split(" ", 4) for line in text.splitlines()):
        if kind == "B":
            out.blocks[int(address, 16)] = bytes.fromhex(rest[0])
        else:
            out.truth.append((int(address, 16), int(rest[0]), rest[2], int(rest[1])))
    return out


def laid_out(captured: Captured, seed: int = 1, text: bytes = b"") -> tuple[bytes, dict[int, int]]:
    """(a dump that holds the blocks in random order among others, old → new address of each).

    `text`: in the data of the program's module.
    """
    rng = random.Random(seed)
    heap = NtHeapBuilder(arch="x64", build=19041, base=0x20000000000, reserve=0x4000000)
    order = list(captured.blocks)
    rng.shuffle(order)
    moved = {}
    for at in order:
        if rng.random() < 0.1:
            heap.free(2 + rng.randrange(6))
        moved[at] = heap.busy(len(captured.blocks[at]))
    late = [(moved[at], _relocated(data, captured.blocks, moved)) for at, data in captured.blocks.items()]
    process = ProcessBuilder(arch="x64", build=19041).heap(heap.build())
    return poke(process.build(), *late, (process.plan.exe + 0xB100, text)).data, moved


def _relocated(data: bytes, blocks: dict[int, bytes], moved: dict[int, int]) -> bytes:
    """The bytes with each pointer into a block replaced."""
    out = bytearray(data)
    starts = sorted(blocks)
    for offset in range(0, len(data) - 7, 8):
        value = int.from_bytes(data[offset : offset + 8], "little")
        at = starts[bisect_right(starts, value) - 1] if value >= starts[0] else -1
        if at >= 0 and value - at <= len(blocks[at]):
            out[offset : offset + 8] = (moved[at] + value - at).to_bytes(8, "little")
    return bytes(out)
