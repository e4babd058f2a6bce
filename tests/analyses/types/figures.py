"""A process whose every block is known: objects with buffers, lists and vectors, plain structs, and noise.

What a block is, and whose it is, follows from how it is laid out here; the classes are those of a compiled DLL.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from dataclasses import dataclass, field

from heapdump.analyses.types.typing import BlockTyping
from heapdump.process.symbols.namer import Namer
from heapdump.snapshot import Snapshot
from tests.analyses.types.compiled import Compiled, Objects
from tests.patching import poke

QUEUES, CIRCLES, RECORDS, NOISE, POINT = 40, 400, 900, 300, 16
_OFFSETS = {
    ("x64", False): (16, 40, 56), ("x86", False): (8, 20, 28), ("x64", True): (24, 56, 72), ("x86", True): (12, 28, 36),
}  # fmt: skip
"""(arch, debug build) → offsets in a Queue of the words of its vector and of its list behind the proxies, of frames."""


@dataclass
class World(Objects):
    """The process. `owner`: of each block; "" for none; `is_debug`: every block has a header of the debug CRT."""

    is_debug: bool = False
    owner: dict[int, str] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)

    def block(self, truth: str, owner: str, size: int) -> int:
        """A block that is written later; at random places among freed ones."""
        if self.random.random() < 0.1:
            self.heap.free(2 + self.random.randrange(6))
        remains = bytes(0x80 | byte for byte in self.random.randbytes(size))  # no addresses
        if self.is_debug:
            header = 0x30 if self.width == 8 else 0x20
            whole = self.heap.busy(header + size + 4)
            fields = self.words(0, 0, 0) + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
            fields += size.to_bytes(self.width, "little") + (7).to_bytes(4, "little") + b"\xfd" * 4
            self.late.append((whole, fields + remains + b"\xfd" * 4))
            at = whole + header
        else:
            at = self.heap.busy(size, remains)
        self.truth[at], self.owner[at] = truth, owner
        return at

    def write(self, at: int, content: bytes) -> None:
        self.late.append((at, content))

    def build(self) -> bytes:
        return poke(self.process().build(), *self.late).data


def world(program: Compiled, kind_of: dict[str, str], *, is_debug: bool, has_pdb: bool, seed: int = 1) -> World:
    """Everything. `kind_of`: class → the label of its objects."""
    made = World(program, seed, is_debug=is_debug)
    plan = _Plan(made, kind_of["Queue"], kind_of["Circle"], has_pdb)
    todo = [plan.queue] * QUEUES + [plan.circle] * CIRCLES + [plan.record] * RECORDS + [plan.noise] * NOISE
    made.random.shuffle(todo)
    for make in todo:
        make()
    lists = {"g_queues": plan.queues, "g_circles": plan.circles, "g_records": plan.records}
    made.globals = {name: made.words(*addresses) for name, addresses in lists.items()}
    return made


@dataclass
class _Plan:
    """Writes objects to a world. `queue_label`, `circle_label`: of their class; `has_pdb`: structs have a type, too."""

    made: World
    queue_label: str
    circle_label: str
    has_pdb: bool
    queues: list[int] = field(default_factory=list)
    circles: list[int] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    points: list[int] = field(default_factory=list)

    def queue(self) -> None:
        """A queue with a vector of points, a list and four untyped buffers."""
        made, rng, held = self.made, self.made.random, f"held by {self.queue_label}"
        vector_at, list_at, frames_at = _OFFSETS[made.program.arch, made.is_debug]
        data = bytearray(made.program.objects["Queue"])
        at = made.block(self.queue_label, held, len(data))

        def put(offset: int, *values: int) -> None:
            """Words of the object."""
            data[offset : offset + len(values) * made.width] = made.words(*values)

        for member in (vector_at, list_at) if made.is_debug else ():
            proxy = made.block("proxy of a container (debug build)", held, 2 * made.width)
            made.write(proxy, made.words(at + member - made.width, 0))
            put(member - made.width, proxy)
        used, room = rng.randrange(1, 40), 40 + rng.randrange(40)
        declared = "struct ns::Point[] (program.dll)"
        label = declared if self.has_pdb else f"buffer of the std::vector at +{vector_at} of {self.queue_label}"
        buffer = made.block(label, f"held by {declared}" if self.has_pdb else held, POINT * room)
        made.write(buffer, b"".join(_double(rng) for _ in range(2 * used)))
        put(vector_at, buffer, buffer + POINT * used, buffer + POINT * room)
        label = f"node of the std::list at +{list_at} of {self.queue_label}"
        ring = [made.block(label, held, 5 * made.width) for _ in range(2 + rng.randrange(9))]
        for i, one in enumerate(ring):
            made.write(one, made.words(ring[(i + 1) % len(ring)], ring[i - 1], i, 7 * i))
        put(list_at, ring[0], len(ring) - 1)
        frames = [made.block("", held, 3000 + rng.randrange(2000)) for _ in range(4)]
        made.frames += frames
        put(frames_at, *frames)
        made.write(at, bytes(data))
        self.queues.append(at)

    def circle(self) -> None:
        """A circle with its centre."""
        made, held = self.made, f"held by {self.circle_label}"
        data = bytearray(made.program.objects["Circle"])
        at = made.block(self.circle_label, held, len(data))
        point = "struct ns::Point (program.dll)" if self.has_pdb else ""
        centre = made.block(point, f"held by {point}" if point else held, POINT)
        made.write(centre, _double(made.random) + _double(made.random))
        data[-made.width :] = made.words(centre)
        made.write(at, bytes(data))
        self.circles.append(at)
        self.points.append(centre)

    def record(self) -> None:
        """A plain struct that nothing declares; some have a stale pointer."""
        made, rng = self.made, self.made.random
        at = made.block("", "held by program.dll", 7 * made.width)
        stale = rng.choice(self.points) if self.points and rng.random() < 0.02 else 0
        made.write(at, made.words(len(self.records), rng.randrange(1 << 16), 0x41424344, stale))
        self.records.append(at)

    def noise(self) -> None:
        """A block that nothing holds, with an address in the module and a stale pointer."""
        made, rng = self.made, self.made.random
        at = made.block("", "", rng.choice((24, 40, 64, 200)))
        place = rng.choice([*made.program.exports.values(), 0x1000, 0x2003])
        if rng.random() < 0.5:
            made.write(at, made.words(made.program.base + place, rng.choice([*self.points, 9])))


def _double(rng: random.Random) -> bytes:
    return struct.pack("<d", rng.uniform(-1000, 1000))


@dataclass(frozen=True)
class Figures:
    """Shares of bytes. `wrong`: (truth, answer) → bytes."""

    precision: float
    recall: float
    wrong: Counter[tuple[str, str]]


def figures(made: World, typing: BlockTyping, truth: dict[int, str], snapshot: Snapshot, *, owners: bool) -> Figures:
    """How much of what is said is right, and how much of what is true is said."""
    graph = snapshot.graph
    said = known = right = 0
    wrong: Counter[tuple[str, str]] = Counter()
    for row, start, size in zip(graph.rows.tolist(), graph.start.tolist(), graph.size.tolist(), strict=True):
        if start not in truth:
            continue
        label = typing.label_of(row)
        assert label is not None
        answer = owner_said(label.label) if owners else type_said(label.short, is_object=label.is_object)
        said, known = said + size * bool(answer), known + size * bool(truth[start])
        right += size * (bool(answer) and answer == truth[start])
        if answer != truth[start]:
            wrong[truth[start], answer] += size
    return Figures(right / max(said, 1), right / max(known, 1), wrong)


def type_said(label: str, *, is_object: bool) -> str:
    """The label where it claims a class, a container or a part of one; else ""."""
    claims = (is_object, label.startswith(("buffer of", "node of", "buckets of", "proxy of", "block of", "struct ")))
    return label if any(claims) else ""


def owner_said(label: str) -> str:
    """The owner without the root that its objects are reached from; of a root its module."""
    if label.startswith("held by nothing"):
        return ""
    said = label.partition(", reached from")[0]
    return said.partition("!")[0]


def judged(snapshot: Snapshot, made: World, namer: Namer) -> tuple[Figures, Figures]:
    """The figures of types and of owners."""
    typing, owners = snapshot.types.typed(namer), snapshot.types.owners(namer)
    return (
        figures(made, typing, made.truth, snapshot, owners=False),
        figures(made, owners, made.owner, snapshot, owners=True),
    )
