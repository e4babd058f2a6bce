"""Built dumps of every kind of heap, small, and the same bytes every time: for the tests that run every command.

In: a path. Out: the dump at that path, and the addresses that command lines may name, as `{name}`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests import address_spaces
from tests.address_spaces import write_pair
from tests.builders import NtHeapBuilder, ProcessBuilder, SegmentHeapBuilder
from tests.builders.page_heap import PageHeapBuilder
from tests.moments import HEAP, LOAD, NONE, RUN, STOP, Moment, Stack
from tests.patching import poke, word
from tests.process.stacks.test_trace_database import RECORDS, UST, record
from tests.runtimes.dotnet.plans import plan

Places = dict[str, int]
Sample = Callable[[Path], Places]


def service(path: Path) -> Places:
    """A healthy x64 process of 19041: two NT heaps, large blocks, a handle without a heap, an exception."""
    process = ProcessBuilder(build=19041, revision=508, exe="C:\\Service\\imagesvc.exe")
    main = NtHeapBuilder(base=0x28A65B00000, flags=0x2, seed=1, lock_collisions=7)
    for i in range(300):
        main.busy(16 + i % 200)
        if i % 7 == 0:
            main.free(5)
    main.uncommitted(0x4000)
    last = main.busy(3000)
    images = NtHeapBuilder(base=0x28A66000000, flags=0x1002, seed=2, index=1)
    images.busy(64)
    for i in range(12):
        images.virtual(0x28A70000000 + i * 0x400000, 3_200_000 + i * 4096)
    process.heap(main.build()).heap(images.build())
    process.heap_handle(0x28A7F000000)
    process.thread(0x1B3C, ip=0x7FF6F1780010, name="Main\x1b[31m")
    process.thread(0x1B40, ip=0x7FF6F1780020)
    process.exception(0x1B40, 0xC0000005, 0x7FF6F1780020, (1, 0x28A7FF00010))
    process.write(path)
    return {"heap": 0x28A65B00000, "block": last}


def wow64(path: Path) -> Places:
    """A WOW64 process of 7601 with an NT heap in each half."""
    process = ProcessBuilder(arch="wow64", build=7601, exe="C:\\Old\\tool32.exe")
    process.heap(NtHeapBuilder(arch="x64", build=7601, base=0x500000, flags=0x2, seed=3).build())
    narrow = NtHeapBuilder(arch="x86", build=7601, base=0x700000, flags=0x2, seed=4)
    block = narrow.busy(100)
    narrow.virtual(0x3000000, 0xD3D28)
    process.heap(narrow.build())
    process.write(path)
    return {"heap": 0x700000, "block": block}


def damaged(path: Path) -> Places:
    """An NT heap of 19041 with an overrun into the next header, and links of a free entry that were overwritten."""
    heap = NtHeapBuilder(base=0x20000000000)
    for size in (90, 40, 24, 300, 64):
        heap.busy(size)
    free = heap.free(20)
    heap.busy(16)
    built = heap.build()
    before, victim = built.truth.busy[2], built.truth.busy[3]
    end = before.user + before.size
    process = ProcessBuilder().heap(built).thread(7, ip=0x401000, name="main")
    changes = [(end, b"Z" * (victim.user - end)), (free + 16, b"A" * 16)]
    path.write_bytes(poke(process.build(), *changes).data)
    return {"heap": 0x20000000000, "block": before.user, "victim": victim.user}


def stacks(path: Path) -> Places:
    """An NT heap of 19041 with recorded stacks and LFH blocks; of its blocks some hold others, some leaked, some in a cycle."""
    ntdll, program = 0x66001234, 0x67002000
    frames = [(ntdll, program + 0x10, program + 0x900), (ntdll, program + 0x200, program + 0x900), (ntdll, ntdll + 8)]
    heap = NtHeapBuilder(base=0x20000000000, flags=UST, front_end="lfh")
    names = ("root", "child", "inside", "leaked", "below", "cycle", "back", "own", "owned")
    at = {name: heap.busy(100 + 40 * i, trace=RECORDS + 0x100 * (i % 3)) for i, name in enumerate(names)}
    heap.subsegment(6, [40] * 12, trace=RECORDS)
    heap.busy(50)
    process = ProcessBuilder().heap(heap.build())
    for base, name in ((0x66000000, "msvcrt.dll"), (0x67000000, "vision.dll")):
        process.module(base, 0x10000, rf"C:\acme\{name}")
    process.region(RECORDS, 0x1000)
    records = (record("x64", stack).ljust(0x100, b"\0") for stack in frames)
    process.memory(RECORDS, b"".join(records).ljust(0x1000, b"\0"))
    data = process.plan.exe + 0xC000 - 0x1000
    links = [
        (data, at["root"]), (data + 8, at["inside"] + 5), (at["root"], at["child"]), (at["leaked"], at["below"]),
        (at["cycle"], at["back"]), (at["back"] + 8, at["cycle"]), (at["own"], at["own"]), (at["own"] + 8, at["owned"]),
    ]  # fmt: skip
    path.write_bytes(poke(process.build(), *((place, word(target)) for place, target in links)).data)
    return {"heap": 0x20000000000, "block": at["child"]} | at


def page_heap(path: Path) -> Places:
    """A page heap of 19041: two busy blocks, a freed one, and the exception of a read from that one."""
    builder = PageHeapBuilder(0x30000000)
    busy = builder.block(100, trace=builder.trace(0x401000, 0x402000), thread=7)
    builder.block(60, trace=builder.trace(0x401000), thread=7)
    gone = builder.block(144, state="freed", trace=builder.trace(0x403000), thread=8)
    process = ProcessBuilder(build=19041, nt_global_flag=0x02000000).heap(builder.build())
    process.thread(99).dump.exception(99, 0xC0000005, 0x401000, (0, gone + 8))
    process.write(path)
    return {"heap": 0x30000000, "block": busy, "freed": gone}


def segment_heap(path: Path) -> Places:
    """A segment heap of 19041 with blocks of each kind beside the NT heap of the process."""
    main = NtHeapBuilder(base=0x20000000000, seed=5)
    main.busy(100)
    heap = SegmentHeapBuilder(base=0x21000000000, seed=6)
    heap.segment(0x21010000000)
    heap.chunks([100, 200, -20, 300])
    for granules in (3, 7, 12, 20, 31, 43, 50):  # enough that the encoded offsets have one key only
        count = heap.most_lfh_blocks(16 * granules, 1)
        heap.lfh_blocks(16 * granules, [16 * granules - i % 9 if i % 3 else -1 for i in range(count)])
    heap.pages(0x8000)
    large = heap.large(0x21020000000, 600_000)
    process = heap.build().add_to(ProcessBuilder().heap(main.build()))
    path.write_bytes(process.build().data)
    return {"heap": 0x21000000000, "block": large}


def before_vista(path: Path) -> Places:
    """An NT heap of XP with lookaside lists."""
    heap = NtHeapBuilder(arch="x86", build=2600, base=0x150000, front_end="lookaside", seed=7)
    block = [heap.busy(size) for size in (40, 40, 500, 64)][2]
    heap.free(12)
    heap.busy(24)
    ProcessBuilder(arch="x86", build=2600, revision=5512).heap(heap.build()).write(path)
    return {"heap": 0x150000, "block": block}


def managed(path: Path) -> Places:
    """A CLR of the layout of 8.0: methods, objects in every generation, a record of a failed allocation."""
    made = plan("8")
    made.clr.oom = (2, 1 << 20, 0, 0)
    path.write_bytes(made.clr.build().data)
    return {"method": min(made.methods) + 0x12, "object": made.places["order"], "text": made.places["text"]}


def growth(path: Path) -> Places:
    """An x64 process of 19041 with recorded stacks; an hour later, in `growth-later.dmp` beside it, it has grown."""
    old = Moment({LOAD: [5000] * 4, RUN: [100 + i for i in range(40)], NONE: [50, 60]})
    late = Moment(
        {LOAD: [5000] * 40, RUN: [100 + i for i in range(30)], STOP: [64] * 9, NONE: [50, 60]}, timestamp=1_700_003_600
    )
    old.write(path)
    process = late.process().module(0x69000000, 0x20000, r"C:\acme\plugin.dll", version=(1, 2, 3, 4))
    process.region(0x6A000000, 0x100000)
    process.write(path.with_name(f"{path.stem}-later.dmp"))
    return {"heap": HEAP}


def series(path: Path) -> Places:
    """An x64 process of 19041 with recorded stacks; half an hour later each, `series-1.dmp` to `series-5.dmp` beside it."""
    for i in range(6):
        blocks: dict[Stack, list[int]] = {
            LOAD: [5000] * (4 + 9 * i), RUN: [100 + 40 * (i % 2)] * 50, STOP: [70_000] * (i > 2) + [64], NONE: [50, 60]
        }  # fmt: skip
        moment = Moment(blocks, timestamp=1_700_000_000 + 1800 * i)
        moment.write(path if i == 0 else path.with_name(f"{path.stem}-{i}.dmp"))
    return {"heap": HEAP}


def address_space(path: Path) -> Places:
    """An x86 process of 7601; in `address-space-later.dmp` beside it, another run in which a hook moved its runtime."""
    before, after = write_pair(path.parent)
    Path(before).replace(path)
    Path(after).replace(path.with_name(f"{path.stem}-later.dmp"))
    return {"heap": 0x1000000}


def hooked(path: Path) -> Places:
    """An x86 process of 7601 whose address space a moved runtime breaks up."""
    address_spaces.process(hooked=True).write(path)
    return {"heap": 0x1000000}


SAMPLES: dict[str, Sample] = {
    make.__name__.replace("_", "-"): make
    for make in (
        service,
        wow64,
        damaged,
        stacks,
        page_heap,
        segment_heap,
        before_vista,
        managed,
        growth,
        growth,
        series,
        address_space,
        hooked,
    )
}
