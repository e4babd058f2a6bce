"""What is measured: a command on a dump, in a state of its caches, with the number that its answer must have.

A state says what is there before the command starts. `no index`: machine code is kept, the file is in memory, no index;
`index`: the same command ran before; `first run`: of an installation, no machine code; `cold file`: as `no index`, but
nothing of the dump is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["no index", "index", "first run", "cold file"]
Number = Callable[[str], int]


@dataclass(frozen=True)
class Case:
    """`command` on the dump `dump`. `number(output)` must be the dump's truth of the name `truth`."""

    dump: str
    command: str
    state: State
    truth: str
    number: Number
    exit_code: int = 0

    @property
    def name(self) -> str:
        """Its words in tables and files."""
        return f"{self.dump}: {self.command} ({self.state})"


def _data(output: str) -> Any:
    return json.loads(output)["data"]


def _blocks(output: str) -> int:
    return sum(heap["busy_blocks"] + heap["free_blocks"] for heap in _data(output))


def _busy(output: str) -> int:
    return sum(heap["busy_blocks"] for heap in _data(output))


def _grouped(output: str) -> int:
    groups = _data(output)
    return sum(group["count"] for group in (groups["groups"] if isinstance(groups, dict) else groups))


def _lines(output: str) -> int:
    return output.count("\n")


def _findings(output: str) -> int:
    return sum(finding["kind"] == "entry_header" for finding in _data(output))


def _any(output: str) -> int:
    return -1


HEAPS, LEAKS, BY_SIZE = "heaps --json", "leaks --unreachable --json", "leaks --group-by size --json"
CASES = (
    Case("small", HEAPS, "no index", "blocks", _blocks),
    Case("backend", HEAPS, "first run", "blocks", _blocks),
    Case("backend", HEAPS, "no index", "blocks", _blocks),
    Case("backend", HEAPS, "cold file", "blocks", _blocks),
    Case("backend", HEAPS, "index", "blocks", _blocks),
    Case("backend", "blocks --state all --format jsonl", "no index", "blocks", _lines),
    Case("backend", BY_SIZE, "no index", "", _any),
    Case("backend", "leaks --group-by type --json", "no index", "", _any),
    Case("backend", "leaks --group-by type --json", "index", "", _any),
    Case("graph", LEAKS, "first run", "unreachable", _grouped),
    Case("graph", LEAKS, "no index", "unreachable", _grouped),
    Case("graph", LEAKS, "index", "unreachable", _grouped),
    Case("graph", "retained --json", "no index", "", _any),
    Case("graph", "retained --json", "index", "", _any),
    Case("lfh", HEAPS, "no index", "busy", _busy),
    Case("page_heap", HEAPS, "no index", "blocks", _blocks),
    Case("damaged", "check --json", "no index", "damaged", _findings, 1),
)  # fmt: skip
LARGE = (
    Case("backend_40m", HEAPS, "no index", "blocks", _blocks),
    Case("backend_40m", LEAKS, "no index", "", _any),
    Case("backend_40m", "retained --json", "no index", "", _any),
    Case("backend_40m", "triage --json", "index", "", _any),
)
"""With `--large`."""
