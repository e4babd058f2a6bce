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

from heapdump.memory import limits

State = Literal["no index", "index", "first run", "cold file"]
Number = Callable[[str], int]


@dataclass(frozen=True)
class Case:
    """`command` on the dump `dump`. `number(output)` must be the dump's truth of the name `truth`.

    `exit_code`: 4 only where damage in the dump makes the answer incomplete.
    """

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


def _kept(output: str) -> int:
    """Findings of a heap with more of them than a walk keeps: as many as it keeps, and at most as many of the check."""
    found = _findings(output)
    return limits.MAX_FINDINGS if limits.MAX_FINDINGS <= found <= 2 * limits.MAX_FINDINGS else found


def _held(output: str) -> int:
    total: dict[str, int] = _data(output)["total"]
    return total["blocks"]


def _told(output: str) -> int:
    """Blocks of the line about unreachable blocks."""
    return sum(line["blocks"] for line in _data(output)["who"] if line["kind"] == "unreachable")


HEAPS, LEAKS, BY_SIZE = "heaps --json", "leaks --unreachable --json", "leaks --group-by size --json"
BY_TYPE = "leaks --group-by type --json"
CASES = (
    Case("small", HEAPS, "no index", "blocks", _blocks),
    Case("backend", HEAPS, "first run", "blocks", _blocks),
    Case("backend", HEAPS, "no index", "blocks", _blocks),
    Case("backend", HEAPS, "cold file", "blocks", _blocks),
    Case("backend", HEAPS, "index", "blocks", _blocks),
    Case("backend", "blocks --state all --format jsonl", "no index", "blocks", _lines),
    Case("backend", BY_SIZE, "no index", "busy", _grouped),
    Case("backend", BY_TYPE, "no index", "busy", _grouped),
    Case("backend", BY_TYPE, "index", "busy", _grouped),
    Case("backend", "leaks --group-by owner --json", "no index", "busy", _grouped),
    Case("graph", LEAKS, "first run", "unreachable", _grouped),
    Case("graph", LEAKS, "no index", "unreachable", _grouped),
    Case("graph", LEAKS, "index", "unreachable", _grouped),
    Case("graph", "retained --json", "no index", "held", _held),
    Case("graph", "retained --json", "index", "held", _held),
    Case("lfh_100", HEAPS, "no index", "busy", _busy),
    Case("lfh_1000", HEAPS, "no index", "busy", _busy),
    Case("segment_lfh", HEAPS, "no index", "busy", _busy),
    Case("page_heap", HEAPS, "no index", "blocks", _blocks),
    Case("damaged", HEAPS, "no index", "busy", _busy, 4),
    Case("damaged", "check --json", "no index", "damaged", _findings, 1),
    Case("damaged_often", HEAPS, "no index", "busy", _busy, 4),
    Case("damaged_often", "check --json", "no index", "kept", _kept, 1),
)  # fmt: skip
LARGE = (
    Case("backend_40m", HEAPS, "no index", "blocks", _blocks),
    Case("backend_40m", LEAKS, "no index", "unreachable", _grouped),
    Case("backend_40m", "retained --json", "no index", "held", _held),
    Case("backend_40m", "triage --json", "index", "unreachable", _told),
)
"""With `--large`."""
