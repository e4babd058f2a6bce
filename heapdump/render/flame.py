"""A flame graph as one HTML file without other files: hover, zoom, search, by bytes or by blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from heapdump.render.profiles import Sample, names_of

Node = dict[str, Any]
"""A box of the graph: `n` name, `b` bytes, `c` blocks, `k` boxes that it calls, by name, `d` net bytes and blocks."""


def flame(samples: Sequence[Sample], title: str) -> str:
    """The HTML page. Frames with the same name and the same callers are one box.

    Of a difference, the width of a box is all that changed in it; what grew is red, what shrank is blue.
    """
    root = _node("all")
    for sample in samples:
        node = root
        _add(node, sample)
        for name in reversed(names_of(sample)):
            node = node["k"].setdefault(name, _node(name))
            _add(node, sample)
    data = json.dumps(list(_flat(root)), separators=(",", ":")).replace("<", "\\u003c")
    page = files("heapdump.render").joinpath("flame.html").read_text(encoding="utf-8")
    values = {"@TITLE@": escape(title), "@DATA@": data}
    return re.sub("@(?:TITLE|DATA)@", lambda match: values[match[0]], page)


def _node(name: str) -> Node:
    return {"n": name, "b": 0, "c": 0, "k": {}, "d": []}


def _add(node: Node, sample: Sample) -> None:
    node["b"] += sample.bytes
    node["c"] += sample.blocks
    if sample.net_bytes is not None and sample.net_blocks is not None:
        before = node["d"] or [0, 0]
        node["d"] = [before[0] + sample.net_bytes, before[1] + sample.net_blocks]


def _flat(root: Node) -> Iterator[list[int | str]]:
    """[depth, name, bytes, blocks] of every box: a caller before its callees, these by bytes, the largest first.

    Of a difference, [… net bytes, net blocks]: with their sign.
    """
    waiting = [(0, root)]
    while waiting:
        depth, node = waiting.pop()
        yield [depth, node["n"], node["b"], node["c"], *node["d"]]
        waiting += [(depth + 1, child) for child in sorted(node["k"].values(), key=lambda child: int(child["b"]))]
