"""What is kept beside the walk: the pointer graph, how blocks are reached, what they retain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heapdump
from heapdump.cache import store
from tests.analyses.graph.plans import How, Plan, lay


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "blocks"


def answers(path: Path) -> tuple[Any, ...]:
    """Everything that is kept of the pointer graph."""
    with heapdump.open_dump(path) as snapshot:
        graph, tree, reached = snapshot.graph, snapshot.retained, snapshot.reached
        columns: tuple[np.ndarray, ...] = (
            graph.rows,
            graph.start,
            graph.size,
            graph.widths,
            graph.edges.degree,
            graph.edges.targets,
            graph.root_edges.targets,
        )
        columns += (tree.number, tree.order, tree.dominator, tree.bytes, tree.blocks, reached.state, *reached.cycles)
        return [column.tolist() for column in columns], graph.missing_bytes, graph.edges.present_bytes


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Blocks that hold each other, and some in a circle."""
    links: list[tuple[int, int, How]] = [
        (0, 1, "start"),
        (1, 2, "inside"),
        (3, 4, "start"),
        (4, 3, "start"),
        (5, 5, "start"),
    ]
    path = tmp_path / "linked.dmp"
    path.write_bytes(lay(Plan("x64", [40] * 6, links, [("module", 0, "start"), ("memory", 1, "start")])).built.data)
    return path


def test_the_pointer_graph_is_swept_once(linked, folder, monkeypatch):
    before = answers(linked)
    (inside,) = folder.iterdir()
    assert {"graph.json", "reach.json", "retained.json", "graph.targets"} <= {file.name for file in inside.iterdir()}

    def never(*arguments, **options):
        raise AssertionError("swept again")

    for name in ("pointer_graph.build_graph", "unreachable.classify", "retained.retained_of"):
        monkeypatch.setattr(f"heapdump.analyses.graph.{name}", never)
    assert answers(linked) == before


@pytest.mark.parametrize(
    "name", ["graph.json", "graph.targets", "graph.areas", "reach.state", "retained.bytes", "retained.json"]
)
def test_a_damaged_part_of_the_graph_is_made_again(linked, folder, name):
    before = answers(linked)
    (inside,) = folder.iterdir()
    data = bytearray((inside / name).read_bytes())
    data[-1] ^= 1
    (inside / name).write_bytes(data)
    assert answers(linked) == before
    (inside / name).write_bytes(b"")
    assert answers(linked) == before
    (inside / name).unlink()
    assert answers(linked) == before


def test_no_graph_is_kept_without_an_index_or_where_there_is_no_room(linked, folder, monkeypatch):
    with heapdump.open_dump(linked, use_index=False) as snapshot:
        assert len(snapshot.graph) == 6
    assert not folder.exists()
    with heapdump.open_dump(linked) as snapshot:
        assert len(snapshot.walk.table) > 6
        monkeypatch.setattr(store, "_most_bytes", lambda root: 10)
        assert len(snapshot.graph) == 6
        assert any(
            remark.startswith("not kept in the index") and "pointers between blocks" in remark
            for remark in snapshot.remarks
        ) and not list(folder.glob("*/graph.json"))
