"""The HTML report: `content.Report` in, one self-contained page out.

The template escapes every value; data for scripts is JSON in a block that is never executed. The content security
policy of the page names its one script and its one style by hash, and allows nothing else: no network, no other code.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from heapdump.render.report.bands import drawing
from heapdump.render.report.content import Box, ReportContent, ReportFrame
from heapdump.render.report.items import (
    code_words,
    css_of_style,
    is_aligned,
    is_preformatted,
    item_kind,
    item_runs,
    table_grid,
)
from heapdump.render.report.squares import squares
from heapdump.render.text import count, printable, short_size

_MOST_DEPTH = 40


def page(report: ReportContent) -> str:
    """The page as text."""
    script, style = _file("report.js"), _file("report.css")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _template().render(
        report=report,
        policy=policy,
        # our own files, and JSON without the characters that could end its block
        script=Markup(script),
        style=Markup(style),
        data=Markup(_json(_data(report))),
        squares=squares(report.memory),
        flow=drawing(report.flow) if report.flow else None,
    )


@cache
def _template() -> Template:
    """The template of a page; compiled once in a process, as that takes longer than to fill it."""
    environment = Environment(
        autoescape=True, loader=FunctionLoader(_file), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "safe_text": printable, "size": short_size, "count": count, "grid": table_grid, "kind": item_kind,
        "css": css_of_style, "preformatted": is_preformatted, "aligned": is_aligned, "code_words": code_words,
        "runs": item_runs, "signed": _signed,
    }  # fmt: skip
    return environment.get_template("page.html")


def _file(name: str) -> str:
    return files("heapdump.render.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _signed(value: int) -> str:
    """`+1.5 MB`, `−300 bytes`."""
    return f"{'−' if value < 0 else '+'}{short_size(abs(value))}" if value else "±0"


def _json(value: Any) -> str:
    """JSON that holds no character with a meaning in HTML."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _data(report: ReportContent) -> dict[str, Any]:
    return {
        "dump": printable(report.dump),
        "memory": _box(report.memory),
        "graph": _frame(report.graph, 0) if report.graph else None,
        "compares": bool(report.old),
        "held": "committed" if report.is_whole else "in the dump",
        "rest": "reserved" if report.is_whole else "not in the dump",
    }


def _box(box: Box) -> list[Any]:
    """[name, committed, size, css, command, delta, children]."""
    children = [_box(child) for child in box.children]
    return [printable(box.name), box.committed, box.size, box.css, list(box.command), box.delta, children]


def _frame(frame: ReportFrame, depth: int) -> list[Any]:
    """[name, bytes, blocks, delta, children]."""
    children = [_frame(child, depth + 1) for child in frame.children] if depth < _MOST_DEPTH else []
    return [printable(frame.name), frame.bytes, frame.blocks, frame.delta, children]
