"""`refs ADDRESS`: who points at a block, what it points to, and how the roots lead there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import click

from heapdump.commands.common.addresses import address_in
from heapdump.commands.common.blocks import BlockRecorder
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.holder_tree import holder_tree, holder_words
from heapdump.commands.common.next_command import command_text
from heapdump.commands.common.options import option
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.types import type_record, type_words, typing_for
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.graph.references import Path, Pointer, References
    from heapdump.analyses.types.typing import BlockTyping
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot
    from heapdump.spans import Span

_MOST_STEPS = 12
_REACHED = {
    "reachable": "held by the program",
    "possible": "held only by pointers to the inside of blocks, or by weak roots",
    "direct": "held by nothing", "indirect": "held by unreachable blocks only",
}  # fmt: skip
"""State of a block (`Reach.word`) → the state in words."""

_LEAKS = {"direct": "a direct leak", "indirect": "an indirect leak"}


@dataclass(frozen=True, slots=True)
class _RefsAnswer:
    """A block and the answer about it.

    Attributes:
        snapshot: the dump.
        typing: the types of all blocks.
        references: pointers from and to blocks.
        block: the block.
        node: its node in the pointer graph.
        reach: `Reach.word` of its state.
        cycle: number of blocks in the cycle whose first block it is; 0 for others.
        paths: paths from roots to it.
        depth: levels of holders to list.
        has_way_in: False where no root leads into any heap, so that unreachable blocks are no leaks.
    """

    snapshot: Snapshot
    typing: BlockTyping
    references: References
    block: Block
    node: int
    reach: str
    cycle: int
    paths: list[Path]
    depth: int
    has_way_in: bool

    @property
    def reached(self) -> str:
        """The reachability of the block, in words."""
        from heapdump.analyses.graph.way_in import NO_WAY_IN

        words = _REACHED[self.reach]
        if self.cycle:
            words = f"held by nothing but a reference cycle of {text.plural(self.cycle, 'block')}"
        leak = _LEAKS.get(self.reach)
        if leak is None:
            return words
        return f"{words}: {leak}" if self.has_way_in else f"{words}; {NO_WAY_IN}"

    def type(self, node: int) -> Record | None:
        """The record of a node's type; None where nothing tells it."""
        return type_record(self.typing, int(self.snapshot.graph.rows[node]))

    def span(self, node: int) -> Span:
        """The program's bytes of a node; of CRT debug blocks those behind the CRT's header."""
        return self.references.span(node)


@option(
    "--depth",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Levels of holders, as a tree: 2 also shows who points at them, …  [default: 1]",
)
@option(
    "--all-paths",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Up to N shortest paths from different roots.  [default: 1]",
)
@dump_command("refs", takes_address=True)
def command(request: Request, address: str, depth: int, all_paths: int) -> int:
    """Who points at a block, and the paths from roots.

    Roots are registers, stacks, writable module data, TEBs and PEBs; where none of them leads to the block, other
    writable memory.

    \b
    heapdump refs crash.dmp 0x43500060
    heapdump refs crash.dmp 0x43500060 --depth 3 --all-paths 5
    """
    from heapdump.analyses.graph.unreachable_report import missing_evidence

    with request.open() as snapshot:
        found = _find(request, snapshot, address_in(request, snapshot, address), depth, all_paths)
        answer = Answer(
            "refs",
            data=lambda: _data(request, found),
            records=lambda: _holders(request, found),
            page=lambda: _page(request, found),
            gaps=(*walk_gaps(snapshot), *missing_evidence(snapshot.graph)),
        )
        return request.emit(snapshot, answer)


def _find(request: Request, snapshot: Snapshot, address: int, depth: int, most: int) -> _RefsAnswer:
    from heapdump.analyses.blocks.locate import locate
    from heapdump.analyses.graph.unreachable import Reach
    from heapdump.analyses.graph.way_in import has_way_in

    references = snapshot.references(snapshot.namer(request.image_path, request.symbol_path))
    block = locate(snapshot.walk.table, snapshot.process.space, address).block
    node = references.node_of(block.row) if block else None
    if block is None or node is None:
        what = command_text(snapshot, ("block", f"{address:#x}"))
        raise WrongUsage(f"{address:#x} is in no busy block of the program; what is there: {what}")
    reached = snapshot.reached
    reach = Reach(int(reached.state[node])).word
    cycle = next((len(members) for members in reached.cycles if members[0] == node), 0)
    typing = typing_for(request, snapshot)
    paths = references.paths(node, most)
    way_in = has_way_in(snapshot.process, snapshot.graph)
    return _RefsAnswer(snapshot, typing, references, block, node, reach, cycle, paths, depth, way_in)


def _pointer(found: _RefsAnswer, pointer: Pointer) -> Record:
    """The place of a pointer, the block it lies in, and its target with the offset behind the target's start."""
    source = None if pointer.source is None else found.span(pointer.source)
    target = found.span(pointer.target)
    offset = None if source is None or pointer.at is None else pointer.at - source.start
    return {
        "at": None if pointer.at is None else hex(pointer.at),
        "root": pointer.root or None,
        "weak": pointer.is_weak,
        "block": None if source is None else hex(source.start),
        "size": None if source is None else source.size,
        "offset": offset,
        "to": hex(target.start),
        "to_offset": pointer.value - target.start,
        "type": None if pointer.source is None else found.type(pointer.source),
    }


def _holders(request: Request, found: _RefsAnswer) -> list[Record]:
    levels = found.references.levels(found.node, found.depth)
    return request.rows([{"level": level} | _pointer(found, pointer) for level, pointer in levels], lambda row: row)


def _targets(found: _RefsAnswer) -> list[Record]:
    """Records of the pointers in the block, by the place where they lie."""
    made: list[Record] = []
    for target in found.references.targets(found.node).tolist():
        more = {"to_size": found.span(target).size, "to_type": found.type(target)}
        made += [_pointer(found, pointer) | more for pointer in found.references.pointers(found.node, target)]
    return sorted(made, key=lambda one: one["offset"] or 0)


def _data(request: Request, found: _RefsAnswer) -> Record:
    return {
        "block": BlockRecorder(found.snapshot)(found.block),
        "reach": found.reach,
        "paths": [_path(found, path) for path in found.paths],
        "holders": _holders(request, found),
        "targets": _targets(found),
    }


def _path(found: _RefsAnswer, path: Path) -> Record:
    spans = (found.span(node) for node in path.nodes)
    return {
        "line": _path_line(found, path),
        "root": _pointer(found, path.root),
        "blocks": [
            {"address": hex(span.start), "size": span.size, "type": found.type(node)}
            for node, span in zip(path.nodes, spans, strict=True)
        ],
    }


def _page(request: Request, found: _RefsAnswer) -> Iterator[PageItem]:
    span = found.span(found.node)
    yield Lines([[(f"{span.start:#x}", "bold"), (f", {text.plural(span.size, 'byte')}, is {found.reached}", "")]])
    for path in found.paths:
        yield Lines(_path_lines(found, path))
    shown, hidden = request.shown(_holders(request, found))
    is_tree = found.depth > 1 and request.sort is None
    if is_tree:
        shown = holder_tree(shown)
    title = ("Who points at it, and below who holds that" if is_tree else "Who points at it") if shown or hidden else ""
    columns = HOLDER_COLUMNS[1:] if is_tree or found.depth == 1 else HOLDER_COLUMNS
    yield Table(columns, shown, hidden=hidden, title=title, empty="nothing points at it")
    shown, hidden = request.shown(_targets(found))
    title = "What it points to" if shown else ""
    yield Table(TARGET_COLUMNS, shown, hidden=hidden, title=title, empty="it points to no block")


HOLDER_COLUMNS: tuple[Column[Record], ...] = (
    Column("Level", lambda row: str(row["level"]), "1: points at the block itself, 2: at one that does, …", right=True),
    Column(
        "Held by",
        holder_words,
        "a root, or a block and where in it the pointer lies; indented below what it holds",
        flexible=24,
        wraps=True,
    ),
    Column("", lambda row: "weak" if row["weak"] else "", "weak: in memory that may be forgotten itself"),
    Column("Size", lambda row: text.count(row["size"]) if row["block"] else "", "bytes of that block", right=True),
    Column(
        "Type",
        lambda row: type_words(row["type"]),
        "what that block is, as far as that is known",
        flexible=16,
        wraps=True,
        rank=1,
    ),
    Column(
        "Points to",
        lambda row: row["to"] + (f"+{row['to_offset']:#x}" if row["to_offset"] else ""),
        "the block, and how far behind its start",
        right=True,
    ),
)
TARGET_COLUMNS: tuple[Column[Record], ...] = (
    Column("Offset", lambda row: f"+{row['offset']:#x}", "where in the block the pointer lies", right=True),
    HOLDER_COLUMNS[-1],
    Column("Size", lambda row: text.count(row["to_size"]), "bytes of the block that it points to", right=True),
    Column(
        "Type",
        lambda row: type_words(row["to_type"]),
        "what that block is, as far as that is known",
        flexible=16,
        wraps=True,
    ),
)


def _path_line(found: _RefsAnswer, path: Path) -> str:
    """`app.exe!g_sessions → node of a std::map → class CSession (app.exe) +0x48 → buffer`.

    Where nothing tells the type of a block its size stands for it; equal ones are counted, `12 × 48-byte node`. The
    middle of long paths is left out.
    """
    steps = list[str]()
    nodes = path.nodes
    most = _MOST_STEPS // 2
    for number, node in enumerate(nodes):
        if len(nodes) > _MOST_STEPS and most <= number < len(nodes) - most:
            steps += [text.plural(len(nodes) - _MOST_STEPS, "more block")] * (number == most)
            continue
        span, kind = found.span(node), found.type(node)
        pointer = next(found.references.pointers(node, nodes[number + 1]), None) if number + 1 < len(nodes) else None
        offset = pointer.at - span.start if pointer is not None and pointer.at is not None else 0
        words = kind["short"] if kind else f"{span.size:,}-byte block"
        steps.append(f"{words} +{offset:#x}" if offset else words)
    counted = [(step, sum(1 for _ in same)) for step, same in groupby(steps)]
    return " → ".join([path.root.root, *(f"{many} × {step}" if many > 1 else step for step, many in counted)])


def _path_lines(found: _RefsAnswer, path: Path) -> list[list[tuple[str, str]]]:
    """A path from a root, a line for each block; of a path of more than 12 blocks the first and the last six."""
    is_typed = any(found.type(node) for node in path.nodes[:-1][:_MOST_STEPS])
    line = _path_line(found, path).removeprefix(path.root.root) if is_typed else ""
    lines = [[("from ", ""), (path.root.root, "bold"), (" (weak)" if path.root.is_weak else "", "dim"), (line, "")]]
    nodes = path.nodes
    for number, node in enumerate(nodes):
        if len(nodes) > _MOST_STEPS and _MOST_STEPS // 2 <= number < len(nodes) - _MOST_STEPS // 2:
            if number == _MOST_STEPS // 2:
                lines.append([(f"  … {text.plural(len(nodes) - _MOST_STEPS, 'more block')}", "dim")])
            continue
        span = found.span(node)
        pointer = next(found.references.pointers(node, nodes[number + 1]), None) if number + 1 < len(nodes) else None
        at = f", at +{pointer.at - span.start:#x}" if pointer is not None and pointer.at is not None else ""
        kind = found.type(node)
        words = f" {kind['short']}" if kind else ""
        lines.append([(f"  → {span.start:#x}{words}, {text.plural(span.size, 'byte')}{at}", "")])
    return lines
