"""Types of blocks by what a PDB declares: followed through pointers, where sizes fit; never by size alone."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.analyses.types.declared import DeclaredTypes, declared_types
from heapdump.analyses.types.declared_shapes import DeclaredShapes
from heapdump.process.symbols.pdb_program import PdbProgram, PdbVariable, class_of
from heapdump.process.symbols.pdb_types import PdbTypes
from heapdump.snapshot import Snapshot
from tests.analyses.types.test_block_types import ARCHES, BASE, Blocks
from tests.builders import ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.pdb import TypeStream, base, member
from tests.patching import poke

DATA = 0x7000
DOUBLE, CHAR, INT = 0x41, 0x70, 0x74


class Program:
    """Structures, with variables that point to blocks of them."""

    def __init__(self, arch: HeapArch) -> None:
        self.arch, self.width = arch, 8 if arch == "x64" else 4
        self.types, self.blocks = TypeStream(), Blocks(arch)
        w = self.width
        node = self.types.structure("ns::Node", 0, forward=True)
        point = self.types.structure("Point", 16, self.types.fields(member("x", 0, DOUBLE), member("y", 8, DOUBLE)))
        ways = self.types.fields(member("point", 0, self.pointer(point)), member("node", 0, self.pointer(node)))
        either = self.types.structure("Either", w, ways, union=True)
        fields = self.types.fields(
            member("next", 0, self.pointer(node)), member("where", w, self.pointer(point)), member("either", 2 * w, either),
            member("text", 3 * w, self.pointer(CHAR)), member("numbers", 4 * w, self.pointer(DOUBLE)),
        )  # fmt: skip
        self.types.structure("ns::Node", 5 * w, fields)
        shape = self.types.structure("Shape", w, self.types.fields(self.vtable()))
        self.types.structure(
            "Circle", 2 * w, self.types.fields(base(0, shape), member("centre", w, self.pointer(point)))
        )
        self.kinds = {"node": self.pointer(node), "point": self.pointer(point), "shape": self.pointer(shape)}
        self.kinds["nodes"] = self.pointer(self.kinds["node"])
        self.variables: list[tuple[str, int]] = []
        self.made: dict[int, bytes] = {}

    def pointer(self, kind: int) -> int:
        return self.types.pointer(kind, self.width)

    def vtable(self) -> bytes:
        return b"\x09\x14\0\0" + self.pointer(0x03).to_bytes(4, "little")

    def node(self, *words: int) -> int:
        return self.add(self.blocks.words(*words).ljust(5 * self.width, b"\0"))

    def add(self, content: bytes, size: int | None = None) -> int:
        address = self.blocks.add(content, size)
        self.made[address] = content
        return address

    def variable(self, kind: str, value: int) -> None:
        self.variables.append((kind, value))

    def process(self) -> ProcessBuilder:
        process = ProcessBuilder(arch=self.arch, build=19041).heap(self.blocks.heap.build())
        return process.module(BASE[self.arch], 0x8000, r"C:\acme\program.exe")

    def found(self, snapshot: Snapshot) -> tuple[DeclaredTypes, dict[int, tuple[str, str]]]:
        """(what is declared, address → (label, trust))."""
        types = PdbTypes(self.types.build(), self.width)
        variables = tuple(
            PdbVariable(DATA + 16 * i, kind, types.type(self.kinds[kind])) for i, (kind, _) in enumerate(self.variables)
        )
        module = next(one for one in snapshot.process.modules if one.name == "program.exe")
        shapes = DeclaredShapes([(module, PdbProgram(types, variables, {}, ""))])
        graph = snapshot.graph
        names = [("other data", False), ("class Circle (program.exe)", True)]
        number = np.isin(graph.start, [at for at, data in self.made.items() if data[:1] == b"\xc1"]).astype(np.int32)
        declared = declared_types(snapshot.process.space.mapped, graph, shapes, names, number)
        out: dict[int, tuple[str, str]] = {}
        for label, trust, _, nodes in declared.labels():
            out |= dict.fromkeys(graph.start[nodes].tolist(), (label, trust.value))
        return declared, out

    def late(self) -> list[tuple[int, bytes]]:
        return [
            (BASE[self.arch] + DATA + 16 * i, self.blocks.words(value)) for i, (_, value) in enumerate(self.variables)
        ]


def told(open_built, program: Program) -> dict[int, tuple[str, str]]:
    with open_built(poke(program.process().build(), *program.late())) as snapshot:
        return program.found(snapshot)[1]


@pytest.mark.parametrize("arch", ARCHES)
def test_pointers_are_followed_and_trust_falls(open_built, arch: HeapArch) -> None:
    program = Program(arch)
    point, numbers = program.add(b"\1" * 16), program.add(b"\2" * 800)
    text = program.add(b"a text of 16 chr")
    last = program.node(0, point, 0, text, numbers)
    first = program.node(last)
    program.variable("node", first)
    alone = program.add(b"\3" * 16)
    program.variable("point", alone)
    node, guess = "struct ns::Node (program.exe)", "guess"
    assert told(open_built, program) == {
        first: (node, guess), last: (node, guess), point: ("struct Point (program.exe)", guess),
        alone: ("struct Point (program.exe)", guess), numbers: ("double[] (program.exe)", guess),
    }  # fmt: skip


@pytest.mark.parametrize("arch", ARCHES)
def test_what_a_variable_points_to_is_sure(open_built, arch: HeapArch) -> None:
    program = Program(arch)
    program.variable("point", program.add(b"\1" * 16))
    assert list(told(open_built, program).values()) == [("struct Point (program.exe)", "derived")]


@pytest.mark.parametrize("arch", ARCHES)
def test_arrays_are_told_by_whole_multiples_and_counts(open_built, arch: HeapArch) -> None:
    program = Program(arch)
    several, counted = program.add(b"\1" * 48), program.add(program.blocks.words(3) + b"\1" * 48)
    nodes = [program.node() for _ in range(3)]
    table = program.add(program.blocks.words(*nodes))
    program.variable("point", several)
    program.variable("point", counted + program.width)
    program.variable("nodes", table)
    array, guess = "struct Point[] (program.exe)", "guess"
    assert told(open_built, program) == {
        several: (array, guess), counted: (array, guess), table: ("ns::Node*[] (program.exe)", guess),
        **dict.fromkeys(nodes, ("struct ns::Node (program.exe)", guess)),
    }  # fmt: skip


@pytest.mark.parametrize("arch", ARCHES)
def test_what_does_not_fit_has_no_type(open_built, arch: HeapArch) -> None:
    program = Program(arch)
    program.variable("point", program.add(b"\1" * 24))  # no multiple
    program.variable("point", program.add(b"\1" * 32) + 16)  # inside
    program.variable("point", program.add(program.blocks.words(4) + b"\1" * 48) + program.width)  # another count
    program.variable("shape", program.add(b"\1" * program.width))  # its objects have a vtable
    union = program.add(b"\1" * 16)
    node = program.node(0, 0, union)
    program.variable("node", node)
    assert told(open_built, program) == {node: ("struct ns::Node (program.exe)", "derived")}


@pytest.mark.parametrize("arch", ARCHES)
def test_members_of_objects_are_followed_and_objects_keep_their_class(open_built, arch: HeapArch) -> None:
    program = Program(arch)
    point = program.add(b"\1" * 16)
    program.variable("point", program.add(b"\xc1".ljust(program.width, b"\0") + program.blocks.words(point)))
    assert told(open_built, program) == {point: ("struct Point (program.exe)", "guess")}


@pytest.mark.parametrize("arch", ARCHES)
def test_a_long_list_is_followed_to_its_end(open_built, arch: HeapArch) -> None:
    program = Program(arch)
    nodes = [program.node()]
    for _ in range(3000):
        nodes.append(program.node(nodes[-1]))
    program.variable("node", nodes[-1])
    stranger = program.node()
    found = told(open_built, program)
    assert found.keys() == set(nodes)
    assert stranger not in found


def test_large_arrays_without_pointers_cost_nothing(open_built) -> None:
    program = Program("x64")
    numbers = INT
    for size in (1 << 12, 1 << 22, 1 << 31):
        numbers = program.types.array(numbers, size)
    program.kinds["numbers"] = numbers
    program.kinds["rows"] = program.types.array(program.kinds["point"], 8000)
    program.variable("numbers", 0)
    program.variable("rows", program.add(b"\1" * 16))
    assert list(told(open_built, program).values()) == [("struct Point (program.exe)", "derived")]


def test_classes_of_vtables() -> None:
    named = {
        "??_7Foo@@6B@": "Foo",
        "??_7Both@ns@@6BShape@1@@": "ns::Both",
        "??_7?$Box@H@ns@@6B@": "ns::Box<int>",
        "??_7": "",
        "??_7x": "",
    }
    assert {symbol: class_of(symbol) for symbol in named} == named
