"""The command that says more about a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heapdump.snapshot import Snapshot


def row_command(name: str, row: Any, snapshot: Snapshot) -> tuple[str, ...]:
    """The words behind `heapdump` for a row in the answer of the command `name`; none where no command is about it."""
    make = _OF_COMMAND.get(name)
    try:
        if name == "leaks":
            return "block", f"{row.group.sample[0]:#x}"
        return make(row) if make else ()
    except (AttributeError, KeyError, TypeError):
        return ()  # a row of another table of the same answer


_OF_COMMAND: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "heaps": lambda heap: ("heap", f"{heap.address:#x}") if hasattr(heap, "segments") else (),
    "modules": lambda module: ("modules", str(module.name)),
    "threads": lambda thread: ("threads", f"~{thread.index}", "--frames") if thread.stacks is not None else (),
    "check": lambda incident: ("check", "--address", f"{incident.address:#x}"),
    "retained": lambda row: ("retained", str(row["address"])),
    "gaps": lambda run: ("regions", "--at", f"{run.span.start:#x}"),
}
