"""A flame graph as one HTML file that needs nothing else: hover, zoom, search, bytes or blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from heapdump.render.profiles import Sample, names_of

Node = dict[str, Any]
"""A box: n name, b bytes, c blocks, k children by name."""


def flame(samples: Sequence[Sample], title: str) -> str:
    """The page. Frames of the same name under the same callers are one box."""
    root = _node("all")
    for sample in samples:
        here = root
        _add(here, sample)
        for name in reversed(names_of(sample)):
            here = here["k"].setdefault(name, _node(name))
            _add(here, sample)
    data = json.dumps(list(_flat(root)), separators=(",", ":")).replace("<", "\\u003c")
    page = files("heapdump.render").joinpath("flame.html").read_text(encoding="utf-8")
    parts = {"@TITLE@": escape(title), "@DATA@": data}
    return re.sub("@(?:TITLE|DATA)@", lambda match: parts[match[0]], page)


def _node(name: str) -> Node:
    return {"n": name, "b": 0, "c": 0, "k": {}}


def _add(node: Node, sample: Sample) -> None:
    node["b"] += sample.bytes
    node["c"] += sample.blocks


def _flat(root: Node) -> Iterator[list[int | str]]:
    """[depth, name, bytes, blocks] of every box, callers before what they call, most bytes first."""
    waiting = [(0, root)]
    while waiting:
        depth, node = waiting.pop()
        yield [depth, node["n"], node["b"], node["c"]]
        waiting += [(depth + 1, child) for child in sorted(node["k"].values(), key=lambda child: int(child["b"]))]
