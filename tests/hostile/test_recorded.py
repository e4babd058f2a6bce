"""Every recorded file: answered or refused by name, also with bits flipped and its end cut off."""

from __future__ import annotations

import random

import pytest

from heapdump.errors import HeapdumpError, UnsupportedDump
from heapdump.snapshot import open_dump
from tests.hostile.ladder import climb, survives

pytestmark = [pytest.mark.real, pytest.mark.hostile]

PARTIAL = [
    "win10-14393-x64-electron", "win10-16299-x64-datasegs-sigsegv", "win10-17134-x64-invalid-parameter",
    "win10-17763-x86-thread-names", "win10-19042-x64-fastfail", "win10-19042-x64-non-canonical",
    "win10-19045-x64-token-symbol-heavy", "win11-22000-x64-crashpad-cet", "win11-22621-x64-sentry",
    "win11-22631-x86-wow64-cet", "win11-26200-x64-electron-crashpad", "win7-7600-x86-ascii-read-av",
    "win7-7600-x86-stack-exhaustion", "win7sp1-wow64-x64view-notepad-larger-64bit",
    "win7sp1-wow64-x64view-notepad-small-64bit", "win7sp1-wow64-x86view-notepad-larger-32bit",
    "win7sp1-wow64-x86view-notepad-small-32bit", "win7sp1-x86-chrome-no-kasko", "win7sp1-x86-minimal-fizzbuzz_no_heap",
    "win7sp1-x86-syzyasan-use-after-free", "winxp-sp2-x86-breakpad",
]  # fmt: skip
READ = [f"real/partial/{name}.dmp.xz" for name in PARTIAL]
READ += [f"real/wine/{name}.dmp" for name in ("wine32-crash", "wine32-normal", "wine64-crash", "wine64-normal")]
READ += ["real/win7sp1-wow64-fizzbuzz.dmp.xz"]
BROKEN = ["real/broken/malformed-invalid-range.dmp", "real/broken/malformed-invalid-record-count.dmp"]
OTHERS = [
    f"real/other-systems/{n}.dmp.xz" for n in ("linux-x64-electron", "macos-x64-electron", "lldb-regions-memlist64")
]


@pytest.mark.parametrize("relative", READ)
def test_a_windows_dump_is_answered(recorded, relative):
    summary = climb(recorded(relative))
    assert summary.usage


@pytest.mark.parametrize("relative", READ)
def test_a_partial_dump_names_its_threads_and_modules(recorded, relative):
    with open_dump(recorded(relative)) as snapshot:
        process = snapshot.process
        assert process.threads
        assert process.modules
        assert process.windows.build > 2000
        assert all(thread.ip is not None for thread in process.threads)


@pytest.mark.parametrize("relative", [r for r in READ if "partial" in r])
def test_what_a_partial_dump_cannot_answer_is_said(recorded, relative):
    with open_dump(recorded(relative)) as snapshot:
        is_complete = all(view.heap_list_complete for view in snapshot.process.views)
        assert is_complete or snapshot.gaps
        verified = [heap for heap in snapshot.heaps if heap.is_fully_walked]
        assert len(verified) == len(snapshot.heaps) or any(heap.notes for heap in snapshot.heaps)


@pytest.mark.parametrize("relative", ["real/partial/win7sp1-x86-chrome-no-kasko.dmp.xz", "real/wine/wine64-normal.dmp"])
def test_heaps_that_cannot_be_verified_are_unknown(recorded, relative):
    with open_dump(recorded(relative)) as snapshot:
        assert {heap.kind for heap in snapshot.heaps} <= {"unknown"}
        assert all(heap.notes for heap in snapshot.heaps)


@pytest.mark.parametrize("relative", OTHERS)
def test_a_dump_of_another_system_is_refused_by_name(recorded, relative):
    with pytest.raises(UnsupportedDump):
        climb(recorded(relative))


@pytest.mark.parametrize("relative", BROKEN)
def test_a_malformed_dump_is_refused_or_answered_with_notes(recorded, relative):
    try:
        with open_dump(recorded(relative)) as snapshot:
            assert snapshot.process.views
            assert snapshot.gaps
    except HeapdumpError as error:
        assert relative.rsplit("/", 1)[1] in str(error)


SMALL = [r for r in READ if "syzyasan" not in r and "fizzbuzz.dmp" not in r]


@pytest.mark.parametrize("relative", [*SMALL, *BROKEN])
def test_flipped_bits_and_cut_ends_of_a_recorded_dump_are_survived(recorded, write_dump, relative):
    data = recorded(relative).read_bytes()
    rng = random.Random(relative)
    for _ in range(8):
        changed = bytearray(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
        reach = min(len(changed), rng.choice([64, 1024, 8192, len(data)])) or 1
        for _ in range(rng.randrange(1, 12)):
            if changed:
                changed[rng.randrange(reach)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        path = write_dump(bytes(changed))
        survives(path)
        path.unlink()
