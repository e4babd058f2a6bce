"""Object graphs laid out in built processes, and what follows from them by plain set arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hypothesis import strategies as st

from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke, word

Arch = Literal["x64", "x86", "wow64"]
How = Literal["start", "inside", "past", "unaligned"]
STRONG = ("register", "stack", "module", "teb", "peb")
WEAK = ("memory",)
NONE = ("below", "free", "readonly")
PLACES = (*STRONG, *WEAK, *NONE)
REGISTERS = {
    "x64": ("rbx", "rsi", "r12", "r15"),
    "x86": ("ebx", "esi", "edi", "eax"),
    "wow64": ("rbx", "rsi", "r12", "r15"),
}
ARENA, CONSTANTS = 0x30000000, 0x31000000
TID = 7


@dataclass(frozen=True)
class Plan:
    """`sizes` of blocks, `edges` (from, to, how), `roots` (place, to, how)."""

    arch: Arch
    sizes: list[int]
    edges: list[tuple[int, int, How]]
    roots: list[tuple[str, int, How]]


@dataclass
class Laid:
    """The dump, and the address and size of each block; where every pointer of the plan lies."""

    plan: Plan
    built: BuiltDump
    users: list[int]
    sizes: list[int]
    pointer: int
    root_at: list[int | None] = field(default_factory=list)


@st.composite
def plans(draw, most: int = 14, arches=("x64", "x86", "wow64")) -> Plan:
    """Random graphs: chains, circles, pointers to themselves, to the inside, behind the end, at odd places."""
    sizes = draw(st.lists(st.integers(1, 120), min_size=1, max_size=most))
    node = st.integers(0, len(sizes) - 1)
    how = st.sampled_from(["start", "start", "start", "inside", "past", "unaligned"])
    edges = draw(st.lists(st.tuples(node, node, how), max_size=2 * most))
    roots = draw(st.lists(st.tuples(st.sampled_from(PLACES), node, how), max_size=5))
    return Plan(draw(st.sampled_from(arches)), sizes, edges, roots)


def lay(plan: Plan) -> Laid:
    """The process of a plan: two heaps, blocks in turn."""
    views: tuple[HeapArch, HeapArch] = ("x64", "x86") if plan.arch == "wow64" else (plan.arch, plan.arch)
    heaps = [NtHeapBuilder(arch=view, base=base) for view, base in zip(views, (0x10000000, 0x20000000), strict=True)]
    needed = [max(size, 16 * sum(source == i for source, _, _ in plan.edges)) for i, size in enumerate(plan.sizes)]
    users = [heaps[i % 2].busy(size) for i, size in enumerate(needed)]
    free = heaps[0].free(40) + 0x80
    process = ProcessBuilder(arch=plan.arch)
    for view, heap in zip(views, heaps, strict=True):
        process.heap(heap.build(), view=view)
    widths = [8 if views[i % 2] == "x64" else 4 for i in range(len(users))]
    laid = Laid(plan, BuiltDump(b"", None), users, needed, 8 if plan.arch == "x64" else 4)  # type: ignore[arg-type]
    named = [to for place, to, _ in plan.roots if place == "register"]
    hows = [how for place, _, how in plan.roots if place == "register"]
    values = [value_of(laid, to, how) for to, how in zip(named, hows, strict=True)]
    process.thread(TID, registers=dict(zip(REGISTERS[plan.arch], values, strict=False)))
    for base, protect in ((ARENA, 4), (CONSTANTS, 2)):
        process.region(base, 0x1000, protect=protect)
        process.memory(base, bytes(0x1000))
    changes, written = [], [0] * len(users)
    for source, to, how in plan.edges:
        at = users[source] + 16 * written[source] + (3 if how == "unaligned" else 0)
        written[source] += 1
        changes.append((at, word(value_of(laid, to, how), widths[source])))
    for number, (place, to, how) in enumerate(plan.roots):
        first = _base(process, place, free)
        is_shifted = how == "unaligned"
        root_at = None if first is None else first + 16 * number + (3 if is_shifted else 0)
        laid.root_at.append(root_at)
        if root_at is not None:
            changes.append((root_at, word(value_of(laid, to, how), laid.pointer)))
    laid.built = poke(process.build(), *changes)
    return laid


def _base(process: ProcessBuilder, place: str, free: int) -> int | None:
    plan, wow = process.plan, process.arch == "wow64"
    stack = (plan.stacks32 if wow else plan.stacks) + 0x100000
    teb, wide = process.teb(TID), process.arch == "x64"
    places = {
        "stack": stack - 0x300, "below": stack - 0x800, "module": plan.exe + 0xC000 - 0x1000, "teb": teb + (0x1480 if wide else 0xE10) + 0x40,
        "peb": (plan.peb32 if wow else plan.peb) + 0x500, "memory": ARENA, "readonly": CONSTANTS, "free": free,
    }  # fmt: skip
    if wow:
        places["teb"] += 0x2000
    return places.get(place)


def value_of(laid: Laid, to: int, how: str) -> int:
    """The pointer: the last byte of the block, or the one behind it."""
    return laid.users[to] + {"inside": laid.sizes[to] - 1, "past": laid.sizes[to]}.get(how, 0)


@dataclass(frozen=True)
class Expected:
    """Edges as (from, to, to its start), and blocks by how they are reached."""

    edges: set[tuple[int, int, bool]]
    strong: set[int]
    weak: set[int]
    reachable: set[int]
    possible: set[int]
    direct: set[int]
    cycles: set[frozenset[int]]


def expected(laid: Laid, *, unaligned: bool = False) -> Expected:
    """What a leak check of the plan must find."""
    plan = laid.plan

    def starts(to: int, how: str) -> bool | None:
        """Whether a pointer names the start, None where it is none."""
        if how == "past" or (how == "unaligned" and not unaligned):
            return None
        return how != "inside" or laid.sizes[to] == 1

    edges = {(a, b, bool(starts(b, how))) for a, b, how in plan.edges if starts(b, how) is not None}
    strong: set[int] = set()
    weak: set[int] = set()
    registers = 0
    for place, to, how in plan.roots:
        kind = starts(to, how)
        if place == "register":
            registers += 1
            kind = (
                starts(to, "start" if how == "unaligned" else how) if registers <= len(REGISTERS[plan.arch]) else None
            )
        if kind is None or place in NONE:
            continue
        (strong if kind and place in STRONG else weak).add(to)
    blocks = set(range(len(laid.users)))
    reachable = closure(strong, {(a, b) for a, b, is_start in edges if is_start})
    held = closure(reachable | weak, {(a, b) for a, b, _ in edges})
    unreached = blocks - held
    inner = {(a, b) for a, b, _ in edges if a in unreached and a != b}
    direct = unreached - {b for _, b in inner}
    behind = unreached - closure(direct, inner)
    components = {frozenset(b for b in closure({a}, inner) if a in closure({b}, inner)) for a in behind}
    cycles = {cycle for cycle in components if not any(b in cycle and a not in cycle for a, b in inner)}
    return Expected(edges, strong, weak, reachable, held - reachable, direct, cycles)


def closure(nodes: set[int], edges: set[tuple[int, int]]) -> set[int]:
    """Everything that the nodes lead to, themselves included."""
    out = set(nodes)
    while more := {b for a, b in edges if a in out} - out:
        out |= more
    return out
