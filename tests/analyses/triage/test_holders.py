"""Who holds the memory: what Application Verifier allocated for itself does not hide the program's groups."""

from __future__ import annotations

import numpy as np

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.allocated.groups import BlockGroup
from heapdump.analyses.allocated.leaks import Grouping, LeakGroup, Leaks
from heapdump.analyses.triage.holders import holders
from heapdump.process.symbols.namer import Frame
from heapdump.trust import Trust


def group(key: str, size: int, *modules: str) -> LeakGroup:
    """One block of `size` bytes of the 1,000, allocated through `modules`, innermost first."""
    frames = tuple(Frame(0x1000, module, None, 0x1000, None, None, Trust.EXACT) for module in modules)
    return LeakGroup(key, BlockGroup(0, 1, size, size, size, size / 1000, (), (0x5000,)), frames)


def leaks(*groups: LeakGroup) -> Leaks:
    empty = np.empty(0, np.int64)
    return Leaks(GroupKey.STACK, groups, "", len(groups), 1000, 0, 0, lambda: Grouping([], empty, empty), (), ())


VERIFIERS = [group(f"verifier {size}", size, "ntdll.dll", "verifier.dll", "ntdll.dll") for size in (600, 350)]
PROGRAM = group("app.exe!Load", 50, "ntdll.dll", "verifier.dll", "app.exe")


def test_what_verifier_allocated_for_itself_is_one_group_and_the_program_s_largest_follows() -> None:
    found = holders(leaks(*VERIFIERS, PROGRAM), (), None, has_verifier=True)
    assert [(one.key, one.blocks, one.bytes) for one in found] == [
        ("Application Verifier", 2, 950),
        ("app.exe!Load", 1, 50),
    ]
    assert (
        found[0].sentence
        == "95.0% of the 1,000 bytes in heap blocks: 2 blocks that Application Verifier allocated for itself"
    )


def test_a_program_without_verifier_has_its_own_groups_only() -> None:
    found = holders(leaks(group("app.exe!Load", 1000, "ntdll.dll", "app.exe")), (), None, has_verifier=True)
    assert [one.key for one in found] == ["app.exe!Load"]
