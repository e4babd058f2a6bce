"""Sensible arguments of every command, for tests that run all of them. A command without a line here fails a test."""

from __future__ import annotations

GROUPINGS = ("stack", "size", "heap", "module", "caller", "type", "content", "source")


def command_lines(heap: str, address: str) -> dict[str, list[str]]:
    """Name of the case → arguments, the dump left out; the command is the first. `address`: of a block of `heap`."""
    lines = {
        "summary": ["summary"], "triage": ["triage"], "info": ["info"], "heaps": ["heaps"], "heap": ["heap", heap],
        "blocks": ["blocks", "--limit", "12"], "blocks-free": ["blocks", "--state", "free", "--limit", "12"],
        "blocks-by-size": ["blocks", "--stat"], "block": ["block", address],
        "virt-blocks": ["virt-blocks"], "check": ["check"], "regions": ["regions", "--limit", "12"],
        "modules": ["modules"], "threads": ["threads"], "threads-frames": ["threads", "--frames"],
        "page-heap": ["page-heap"], "refs": ["refs", address], "retained": ["retained"],
        "leaks-unreachable": ["leaks", "--unreachable", "--report-objects"],
    }  # fmt: skip
    return lines | {f"leaks-{key}": ["leaks", "--group-by", key] for key in GROUPINGS}


def with_dump(arguments: list[str], dump: str) -> list[str]:
    """The command line with the dump behind the command."""
    return [arguments[0], dump, *arguments[1:]]
