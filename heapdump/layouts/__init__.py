"""Room 3, struct layouts: data only, one file for each processor and range of builds.

A new Windows build is a new file `<arch>_<build>[.<revision>].json`. Code asks for member names, never for numbers.

Decision: docs/decisions/0001-layouts-chosen-by-what-verifies.md.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from heapdump.layouts.schema import Field, Layout, Struct, parse_layout

__all__ = ["Field", "Layout", "Struct", "candidates", "layout_names", "load"]


def layout_names(arch: str) -> tuple[str, ...]:
    """Names of the layout files of a processor, ascending by first build."""
    names = (item.name.removesuffix(".json") for item in files(__name__).iterdir() if item.name.endswith(".json"))
    return tuple(sorted((name for name in names if name.split("_")[0] == arch), key=first_build))


def first_build(name: str) -> tuple[int, int]:
    """(build, revision) in the name of a layout: the first that it describes."""
    build, _, revision = name.split("_")[1].partition(".")
    return int(build), int(revision or 0)


@cache
def load(name: str) -> Layout:
    """The layout with this name; its file is read once."""
    return parse_layout(name, (files(__name__) / f"{name}.json").read_text(encoding="utf-8"))


@cache
def candidates(arch: str, build: int, revision: int) -> tuple[str, ...]:
    """Names of the layouts to try, the likeliest first: the one for the build, then older ones, then newer ones.

    All layouts of the processor are listed, because a build number can be wrong; none is guaranteed to be right.
    """
    names = layout_names(arch)
    older = [name for name in names if first_build(name) <= (build, revision)]
    newer = [name for name in names if first_build(name) > (build, revision)]
    return (*reversed(older), *newer)
