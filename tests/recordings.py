"""The recorded dumps beside the project, as names: what tests are parametrised with.

The files themselves are opened through the fixture `recorded` alone: it skips where they are missing, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "dumps"
Recorded = Callable[[str], Path]
"""The fixture: the path of a file by its name relative to `FOLDER`; `.xz` ones come unpacked."""


def dumps(pattern: str) -> list[str]:
    """Names of recorded dumps without `.dmp.xz`, ascending; the pattern itself where there are none, to be skipped."""
    found = (path.relative_to(FOLDER).as_posix() for path in FOLDER.glob(f"{pattern}.dmp.xz"))
    return sorted(name.removesuffix(".dmp.xz") for name in found) or [pattern]


def scenarios(pattern: str) -> list[tuple[str, str]]:
    """(Windows build, scenario) of the oracle's dumps, ascending."""
    return [(build, scenario) for _, build, scenario in (name.split("/") for name in dumps(f"oracle/{pattern}"))]


def builds(scenario: str) -> list[str]:
    """The Windows builds that the oracle has this scenario of."""
    return [build for build, _ in scenarios(f"*/{scenario}")]


def truth_of(recorded: Recorded, build: str, scenario: str) -> dict[str, Any]:
    """What the recorded program did."""
    return load_truth(recorded(f"oracle/{build}/{scenario}.truth.json.xz"))


@cache
def load_truth(path: Path) -> dict[str, Any]:
    """The truth in a file."""
    truth: dict[str, Any] = json.loads(path.read_text())
    return truth
