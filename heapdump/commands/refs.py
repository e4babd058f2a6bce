"""`refs ADDRESS`: who points at a block, what it points to, and how the roots lead there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from heapdump.commands.common.block_rows import Recorder, walk_gaps
from heapdump.commands.common.request import Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.graph.references import Path, Pointer, References
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot
    from heapdump.spans import Span

_MOST_STEPS = 12
_REACHED = {
    "reachable": "held by the program", "possible": "held by pointers to the inside of blocks, or by memory that may be forgotten itself, only",
    "direct": "held by nothing: a direct leak", "indirect": "held by leaked blocks only: an indirect leak",
}  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """The block, how it can be reached, and what is known of it."""

    snapshot: Snapshot
    references: References
    block: Block
    node: int
    reach: str
    circle: int
    paths: list[Path]
    depth: int

    @property
    def reached(self) -> str:
        """How, in words; `circle` is the number of blocks in the circle that it is the first of, 0 for none."""
        if self.circle:
            return f"held by a circle of {text.plural(self.circle, 'block')} alone, which nothing else holds: a direct leak"
        return _REACHED[self.reach]

    def span(self, node: int) -> Span:
        """The program's bytes of a node; of CRT debug blocks those behind the CRT's header, which pointers lead to."""
        return self.references.span(node)


@click.option(
    "--depth",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Also who points at those that point at it, so many levels.",
)
@click.option(
    "--all-paths",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Up to N shortest paths from different roots.  [default: 1]",
)
@dump_command("refs", takes_address=True)
def command(request: Request, address: int, depth: int, all_paths: int) -> int:
    """Who points at a block, what it points to, and paths from roots.

    Roots are registers, stacks, writable module data, TEBs and PEBs; where none of them leads to the block, other writable
    memory.

    \b
    heapdump refs crash.dmp 0x43500060
    heapdump refs crash.dmp 0x43500060 --depth 3 --all-paths 5
    """
    from heapdump.analyses.graph.unreachable_report import missing_evidence

    request.refuse_sorting("refs")
    with request.open() as snapshot:
        found = _find(request, snapshot, address, depth, all_paths)
        answer = Answer(
            "refs",
            data=lambda: _data(found),
            records=lambda: _holders(found),
            parts=lambda: _parts(request, found),
            gaps=(*walk_gaps(snapshot), *missing_evidence(snapshot.graph)),
        )
        return request.emit(snapshot, answer)


def _find(request: Request, snapshot: Snapshot, address: int, depth: int, most: int) -> _Found:
    from heapdump.analyses.blocks.select import locate
    from heapdump.analyses.graph.unreachable import Reach

    references = snapshot.references(snapshot.namer(request.image_path, request.symbol_path))
    block = locate(snapshot.walk.table, snapshot.process.space, address).block
    node = references.node_of(block.row) if block else None
    if block is None or node is None:
        raise WrongUsage(
            f"{address:#x} is in no busy block of the program; heapdump block {address:#x} says what is there"
        )
    reach = Reach(int(snapshot.reached.state[node])).name.lower()
    circle = next((len(members) for members in snapshot.reached.cycles if members[0] == node), 0)
    return _Found(snapshot, references, block, node, reach, circle, references.paths(node, most), depth)


def _pointer(found: _Found, pointer: Pointer) -> Record:
    """Where it lies, in what, and how far behind the start of the block that it points to."""
    source = None if pointer.source is None else found.span(pointer.source)
    target = found.span(pointer.target)
    return {
        "at": None if pointer.at is None else hex(pointer.at),
        "root": pointer.root or None,
        "weak": pointer.is_weak,
        "block": None if source is None else hex(source.start),
        "size": None if source is None else source.size,
        "offset": None if source is None or pointer.at is None else pointer.at - source.start,
        "to": hex(target.start),
        "to_offset": pointer.value - target.start,
    }


def _holders(found: _Found) -> Iterator[Record]:
    return (
        {"level": level} | _pointer(found, pointer)
        for level, pointer in found.references.levels(found.node, found.depth)
    )


def _targets(found: _Found) -> Iterator[Pointer]:
    for target in found.references.targets(found.node).tolist():
        yield from found.references.pointers(found.node, target)


def _data(found: _Found) -> Record:
    return {
        "block": Recorder(found.snapshot)(found.block),
        "reach": found.reach,
        "paths": [_path(found, path) for path in found.paths],
        "holders": list(_holders(found)),
        "targets": [
            _pointer(found, pointer) | {"to_size": found.span(pointer.target).size} for pointer in _targets(found)
        ],
    }


def _path(found: _Found, path: Path) -> Record:
    spans = (found.span(node) for node in path.nodes)
    return {
        "root": _pointer(found, path.root),
        "blocks": [{"address": hex(span.start), "size": span.size} for span in spans],
    }


def _parts(request: Request, found: _Found) -> Iterator[Table[Any] | Lines]:
    own = found.span(found.node)
    yield Lines([[(f"{own.start:#x}", "bold"), (f", {text.plural(own.size, 'byte')}, is {found.reached}", "")]])
    for path in found.paths:
        yield Lines(path_lines(found, path))
    level = Column[Any](
        "Level", lambda row: str(row["level"]), "1: points at the block itself, 2: at one that does, …", right=True
    )
    where = Column[Any](
        "Held by",
        lambda row: row["root"] or f"{row['block']}+{row['offset']:#x}",
        "a root, or a block and where in it the pointer lies",
        flexible=24,
    )
    weak = Column[Any]("", lambda row: "weak" if row["weak"] else "", "weak: in memory that may be forgotten itself")
    size = Column[Any](
        "Size", lambda row: text.count(row["size"]) if row["block"] else "", "bytes of that block", right=True
    )
    to = Column[Any](
        "Points to",
        lambda row: row["to"] + (f"+{row['to_offset']:#x}" if row["to_offset"] else ""),
        "the block, and how far behind its start",
        right=True,
    )
    shown, hidden = request.shown(list(_holders(found)))
    columns = (level, where, weak, size, to) if found.depth > 1 else (where, weak, size, to)
    yield Table(columns, shown, hidden=hidden, title="Who points at it", empty="nobody points at it")
    pointers = [_pointer(found, pointer) | {"to_size": found.span(pointer.target).size} for pointer in _targets(found)]
    shown, hidden = request.shown(pointers)
    offset = Column[Any](
        "Offset", lambda row: f"+{row['offset']:#x}", "where in the block the pointer lies", right=True
    )
    of = Column[Any]("Size", lambda row: text.count(row["to_size"]), "bytes of the block that it points to", right=True)
    yield Table((offset, to, of), shown, hidden=hidden, title="What it points to", empty="it points to no block")


def path_lines(found: _Found, path: Path) -> list[list[tuple[str, str]]]:
    """A path from a root, a line for each block; of a long one the ends."""
    lines = [[("from ", ""), (path.root.root, "bold"), (" (weak)" if path.root.is_weak else "", "dim")]]
    nodes = path.nodes
    for number, node in enumerate(nodes):
        if len(nodes) > _MOST_STEPS and _MOST_STEPS // 2 <= number < len(nodes) - _MOST_STEPS // 2:
            if number == _MOST_STEPS // 2:
                lines.append([(f"  … {text.plural(len(nodes) - _MOST_STEPS, 'more block')}", "dim")])
            continue
        own = found.span(node)
        pointer = next(found.references.pointers(node, nodes[number + 1]), None) if number + 1 < len(nodes) else None
        at = f", at +{pointer.at - own.start:#x}" if pointer is not None and pointer.at is not None else ""
        lines.append([(f"  → {own.start:#x}, {text.plural(own.size, 'byte')}{at}", "")])
    return lines
