"""Objects of compiled programs: their classes are told by type information in the image, of plain structs by the PDB."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import heapdump
from heapdump.analyses.types.typing import BlockTyping
from heapdump.cli import cli
from heapdump.process.symbols.namer import Namer
from heapdump.snapshot import Snapshot
from tests.analyses.types.compiled import ARCHES, Compiled, Objects, compiled
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke

NAMES = {
    "Shape": "ns::Shape", "Circle": "ns::Circle", "Both": "ns::Both", "Box": "ns::Box<ns::Point,3>",
    "Hidden": "ns::`anonymous namespace'::Hidden", "Deep": "ns::Deep",
    "Queue": "ns::Queue",
}  # fmt: skip
EACH = 40


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


def with_noise(made: Objects) -> Objects:
    """Blocks beside the objects that begin with addresses in the module, and with text."""
    program = made.program
    places = [*program.exports.values(), 0x1000, 0x2003]
    for _ in range(EACH):
        made.add("", made.words(program.base + made.random.choice(places), 7, 8), 64)
        made.add("", made.random.randbytes(48))
        made.add("", b"a text of some length".ljust(40))
    return made


def judged(snapshot: Snapshot, made: Objects, namer: Namer | None = None) -> tuple[float, float, set[tuple[str, str]]]:
    """(precision, recall, (truth, label) that differ) of bytes; the truth "" is a block without a type."""
    graph, typing = snapshot.graph, snapshot.types.typed(namer or snapshot.namer())
    right = typed = known = 0
    wrong = set()
    for row, start, size in zip(graph.rows.tolist(), graph.start.tolist(), graph.size.tolist(), strict=True):
        label, truth = typing.label_of(row), made.truth.get(start)
        assert label is not None
        if truth is None:
            continue
        is_typed = label.label.endswith(" (program.dll)")
        name = label.label.removeprefix("class ").removeprefix("struct ")
        known += size * bool(truth)
        typed += size * is_typed
        right += size * (is_typed and name == f"{truth} (program.dll)")
        if is_typed != bool(truth) or (is_typed and name != f"{truth} (program.dll)"):
            wrong.add((truth, label.label))
    return right / max(typed, 1), right / max(known, 1), wrong


def name_of(name: str, compiler: str) -> str:
    """A class as in the source, as its compiler writes it."""
    return NAMES[name] if compiler == "clang" else NAMES[name].replace("`anonymous namespace'", "(anonymous namespace)")


def objects_of(program: Compiled, compiler: str, others: dict[str, str] | None = None) -> Objects:
    """Objects of every class; `others`: names of those that have another one."""
    made = Objects(program)
    names = {name: name_of(name, compiler) for name in NAMES} | (others or {})
    made.scatter(*(partial(made.add, names[name], content) for name, content in program.objects.items()), each=EACH)
    return with_noise(made)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("compiler", ["clang", "mingw"])
def test_classes_are_told_by_type_information(open_built, folder: Path, compiler: str, arch: HeapArch) -> None:
    made = objects_of(compiled(folder, compiler, arch), compiler)
    with open_built(made.process()) as snapshot:
        precision, recall, wrong = judged(snapshot, made)
        assert not wrong
        assert (precision, recall) == (1, 1)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("compiler", ["clang", "mingw"])
def test_arrays_of_objects_and_objects_behind_headers_are_told(
    open_built, folder: Path, compiler: str, arch: HeapArch
) -> None:
    program = compiled(folder, compiler, arch)
    made = Objects(program)
    circle, both = program.objects["Circle"], program.objects["Both"]
    for count in (2, 5, 300):
        made.add("ns::Circle[]", made.words(count) + circle * count)
    made.add("", made.words(5) + circle * 4)  # another number
    made.add("", made.words(2) + circle + made.words(program.base + 0x1001) + bytes(len(circle) - made.width))
    made.scatter(lambda: made.add("headed", made.random.randbytes(2 * made.width) + both), each=200)
    with open_built(made.process()) as snapshot:
        labels: dict[str, set[str]] = {}
        for row, start in zip(snapshot.graph.rows.tolist(), snapshot.graph.start.tolist(), strict=True):
            label = snapshot.types.typing.label_of(row)
            labels.setdefault(made.truth.get(start, "else"), set()).add(label.label if label else "")
        kind = "class" if compiler == "mingw" else "struct"
        assert labels["ns::Circle[]"] == {f"{kind} ns::Circle[] (program.dll)"}
        assert not any(label.startswith(("class", "struct")) for label in labels[""])
        (headed,) = labels["headed"]
        assert f"{kind} ns::Both (program.dll) at +{2 * made.width}" in headed
        assert headed.count("ns::Both") == 1, "two vtables are one object"


def structures_of(program: Compiled) -> Objects:
    """A list of nodes with points, a table of them, numbers, and a circle with its centre: all held by variables."""
    made = Objects(program)
    size = {name: program.size_of(name) for name in ("Point", "Node", "Table", "Circle")}
    point = lambda: made.add("ns::Point", made.random.randbytes(size["Point"]))  # noqa: E731
    nodes: list[int] = []
    made.scatter(lambda: nodes.append(made.add("ns::Node", b"", size["Node"])), each=3000)
    for i, node in enumerate(nodes):
        around = [*nodes[i + 1 : i + 2], 0][0], nodes[i - 1] if i else 0
        made.late.append((node, made.words(*around, point() if i % 3 else 0) + i.to_bytes(4, "little")))
        made.late.append((node + size["Node"] - made.width, made.words(point_or_node(made, nodes, i))))
    rows = made.add("ns::Node*[]", made.words(*nodes[:100]))
    weights = made.add("float[]", made.random.randbytes(4000))
    spare = made.add("ns::Node", made.words(0, 0, point()), size["Node"])
    circle = bytearray(program.objects["Circle"])
    circle[-made.width :] = made.words(made.add("ns::Point", made.random.randbytes(size["Point"])))
    table = bytearray(size["Table"])
    where = {"x64": (0, 8, 16, 24), "x86": (0, 8, 16, 20)}[program.arch]
    for offset, value in zip(where, (rows, 100, weights, spare), strict=True):
        table[offset : offset + made.width] = made.words(value)
    made.globals = {
        "g_table": bytes(table), "g_head": made.words(nodes[0]), "g_points": made.words(made.add("ns::Point[]", made.random.randbytes(20 * size["Point"]))),
        "g_circle": made.words(made.add("ns::Circle", bytes(circle))),
    }  # fmt: skip
    return with_noise(made)


def point_or_node(made: Objects, nodes: list[int], i: int) -> int:
    """A union of pointers tells nothing; here it leads to blocks that have the size of a node, and are none."""
    return made.add("", b"", made.program.size_of("Node")) if i % 50 == 0 else nodes[i // 2]


@pytest.mark.parametrize("arch", ARCHES)
def test_structures_are_told_by_what_a_pdb_declares(open_built, folder: Path, arch: HeapArch) -> None:
    program = compiled(folder, "clang", arch)
    made = structures_of(program)
    with open_built(poke(made.process().build(), *made.late)) as snapshot:
        namer = snapshot.namer(symbol_path=str(program.path.parent))
        precision, recall, wrong = judged(snapshot, made, namer)
        assert not wrong
        assert precision >= 0.99
        assert recall >= 0.9
        labels = {one.label: one.trust.value for one in snapshot.types.typed(namer).labels}
        assert labels["struct ns::Node (program.dll)"] == "guess"
        assert labels["struct ns::Circle (program.dll)"] == "derived"
        without = {one.label for one in snapshot.types.typing.labels if one.is_object}
        assert not any("Node" in label or "Point" in label for label in without)


@pytest.mark.parametrize("arch", ARCHES)
def test_classes_without_type_information_are_named_by_a_pdb(open_built, folder: Path, arch: HeapArch) -> None:
    program = compiled(folder, "clang", arch, "-fno-rtti")
    made = objects_of(program, "clang", {"Deep": "", "Hidden": ""})
    with open_built(made.process()) as snapshot:
        precision, recall, wrong = judged(snapshot, made, snapshot.namer(symbol_path=str(program.path.parent)))
        assert not wrong
        assert (precision, recall) == (1, 1)
        assert not any(one.label.startswith(("class ", "struct ")) for one in snapshot.types.typing.labels)


def test_commands_show_what_a_pdb_declares(write_dump, folder: Path) -> None:
    program = compiled(folder, "clang", "x64")
    made = structures_of(program)
    dump = str(write_dump(poke(made.process().build(), *made.late)))
    node = next(address for address, kind in made.truth.items() if kind == "ns::Node")

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(cli, [*arguments, "--symbols", str(program.path.parent)])
        assert result.exit_code == 0, result.output
        return result.output

    for by in ("type", "structure"):
        for _ in range(2):  # from the index, too
            assert "struct ns::Node (program.dll)" in said("leaks", dump, "--group-by", by)
        assert "struct ns::Node" not in CliRunner().invoke(cli, ["leaks", dump, "--group-by", by]).output
    assert "held by struct ns::Node (program.dll)" in said("leaks", dump, "--group-by", "owner")
    assert "by what a PDB declares of pointers to it" in said("block", dump, hex(node), "--fields")
    assert "struct ns::Node (program.dll)" in said("refs", dump, hex(node))
    assert "struct ns::Node (program.dll)" in said("retained", dump)


def test_types_by_a_pdb_are_kept_in_the_index_until_the_pdb_changes(write_dump, folder: Path) -> None:
    program = compiled(folder, "clang", "x64")
    made = structures_of(program)
    path = write_dump(poke(made.process().build(), *made.late))
    stores = path.parent / "symbols"
    stores.mkdir()
    copy = Path(shutil.copy(program.path.with_suffix(".pdb"), stores))

    def asked() -> tuple[BlockTyping, bool]:
        """(the types, True where they were read from the index)."""
        with heapdump.open_dump(path) as snapshot:
            typing = snapshot.types.typed(snapshot.namer(symbol_path=str(stores)))
            return typing, any("by PDBs" in remark and "read from" in remark for remark in snapshot.remarks)

    first, was_kept = asked()
    assert not was_kept
    assert any(one.label == "struct ns::Node (program.dll)" for one in first.labels)
    again, was_kept = asked()
    assert was_kept
    assert again.labels == first.labels
    assert np.array_equal(again.number, first.number)
    os.utime(copy, ns=(0, 0))
    changed, was_kept = asked()
    assert not was_kept
    assert changed.labels == first.labels
    copy.unlink()
    assert not any("ns::Node" in one.label for one in asked()[0].labels)
