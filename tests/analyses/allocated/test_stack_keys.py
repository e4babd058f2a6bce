"""Keys of stacks: two groups never share one; frames of Application Verifier are skipped."""

from __future__ import annotations

from heapdump.analyses.allocated.stack_keys import distinct, first_of_program, passes_on, stack_key
from heapdump.process.symbols.namer import Frame
from heapdump.trust import Trust


def frames(*names: str) -> list[Frame]:
    """Frames of `module+offset`."""
    split = [name.partition("+") for name in names]
    return [Frame(int(at, 16), module, None, int(at, 16), None, None, Trust.EXACT) for module, _, at in split]


def key(*names: str) -> str:
    return stack_key(frames(*names), passes_on(()))


def test_frames_that_only_pass_an_allocation_on_are_skipped() -> None:
    assert key("ntdll.dll+0x1", "ucrtbase.dll+0x2", "app.exe+0x3", "app.exe+0x4") == "app.exe+0x3 ← app.exe+0x4"


def test_verifier_s_frames_are_skipped_where_nothing_but_allocators_is_left() -> None:
    inner, outer = ("ntdll.dll+0x1", "verifier.dll+0x2"), ("kernel32.dll+0x5",)
    assert key(*inner, *outer) == "kernel32.dll+0x5"
    assert key("ntdll.dll+0x1") == "ntdll.dll+0x1"


def test_what_verifier_allocates_for_itself_has_its_name() -> None:
    """Recorded page heaps: the loader calls verifier.dll, which allocates; no import of ntdll leads to Verifier."""
    for outer in ((), ("ntdll.dll+0x5", "ntdll.dll+0x6")):
        assert (
            key("ntdll.dll+0x1", "verifier.dll+0x2", "verifier.dll+0x3", *outer)
            == "verifier.dll+0x2 ← verifier.dll+0x3"
        )
    inner = ("verifier.dll+0x9", "ntdll.dll+0x1", "verifier.dll+0x2")
    assert key(*inner, "ntdll.dll+0x5") == "verifier.dll+0x2"
    assert key(*inner, "app.exe+0x5") == "app.exe+0x5"


def test_stacks_that_begin_alike_have_keys_of_their_own() -> None:
    stacks = [("a+1", "b+2"), ("a+1", "b+3"), ("c+1",)]
    first, second, third = distinct(["f ← g", "f ← g", "h"], stacks)
    assert first != second and first.startswith("f ← g #") and third == "h"
    assert distinct(["f ← g", "f ← g", "h"], stacks) == [first, second, third]


def test_even_keys_whose_hashes_meet_differ() -> None:
    assert len(set(distinct(["f", "f", "f"], [("a+1",)] * 3))) == 3


def test_a_stub_that_the_system_calls_is_no_frame_of_the_program() -> None:
    """Recorded stop 0xf of x86: the system call stub, then ntdll, verifier.dll, the program's free."""
    stub = Frame(0x77F00006, None, None, None, None, None, Trust.GUESS)
    assert first_of_program([stub, *frames("ntdll.dll+0x1", "verifier.dll+0x2", "app.exe+0x3")], passes_on(())) == 3
    assert first_of_program([stub, *frames("app.exe+0x3")], passes_on(())) == 0
    assert first_of_program([stub, *frames("kernel32.dll+0x1")], passes_on(())) == 0
    assert first_of_program(frames("ntdll.dll+0x1"), passes_on(())) is None
