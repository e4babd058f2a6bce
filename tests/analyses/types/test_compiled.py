"""Objects of compiled programs: their classes are told by type information in the image, of plain structs by the PDB."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from heapdump.snapshot import Snapshot
from tests.analyses.types.compiled import ARCHES, Compiled, Objects, compiled
from tests.builders.nt_heap_layout import HeapArch

NAMES = {
    "Shape": "ns::Shape", "Circle": "ns::Circle", "Both": "ns::Both", "Box": "ns::Box<ns::Point,3>",
    "Hidden": "ns::`anonymous namespace'::Hidden", "Deep": "ns::Deep",
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


def judged(snapshot: Snapshot, made: Objects) -> tuple[float, float, set[tuple[str, str]]]:
    """(precision, recall, (truth, label) that differ) of bytes; the truth "" is a block without a type."""
    graph, typing = snapshot.graph, snapshot.types.typing
    right = typed = known = 0
    wrong = set()
    for row, start, size in zip(graph.rows.tolist(), graph.start.tolist(), graph.size.tolist(), strict=True):
        label, truth = typing.label_of(row), made.truth.get(start)
        assert label is not None
        if truth is None:
            continue
        is_typed = label.label.startswith(("class ", "struct "))
        known += size * bool(truth)
        typed += size * is_typed
        right += size * (is_typed and label.label.split(" ", 1)[1] == f"{truth} (program.dll)")
        if is_typed != bool(truth) or (is_typed and label.label.split(" ", 1)[1] != f"{truth} (program.dll)"):
            wrong.add((truth, label.label))
    return right / max(typed, 1), right / max(known, 1), wrong


def name_of(name: str, compiler: str) -> str:
    """A class as in the source, as its compiler writes it."""
    return NAMES[name] if compiler == "clang" else NAMES[name].replace("`anonymous namespace'", "(anonymous namespace)")


def objects_of(program: Compiled, compiler: str) -> Objects:
    made = Objects(program)
    made.scatter(
        *(partial(made.add, name_of(name, compiler), content) for name, content in program.objects.items()), each=EACH
    )
    return with_noise(made)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("compiler", ["clang", "mingw"])
def test_classes_are_told_by_type_information(open_built, folder: Path, compiler: str, arch: HeapArch) -> None:
    made = objects_of(compiled(folder, compiler, arch), compiler)
    with open_built(made.process()) as snapshot:
        precision, recall, wrong = judged(snapshot, made)
        assert not wrong
        assert (precision, recall) == (1, 1)
