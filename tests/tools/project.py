"""The dependencies that `pyproject.toml` names."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)\s*(?:;.*)?")


@dataclass(frozen=True, slots=True)
class Dependency:
    """`least`: the lowest version that is allowed; `extra`: of the extra that needs it, "" for every installation."""

    name: str
    least: str
    extra: str


def _parsed(requirement: str, extra: str) -> Dependency:
    found = _REQUIREMENT.fullmatch(requirement)
    if found is None:
        raise ValueError(f"{requirement}: a dependency is written `name>=version`")
    return Dependency(found[1], found[2], extra)


def dependencies() -> tuple[Dependency, ...]:
    """Those of every installation, then those of extras.

    Raises:
        ValueError: one has no lower bound.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).items()
    return (
        *(_parsed(one, "") for one in project["dependencies"]),
        *(_parsed(one, extra) for extra, listed in extras for one in listed),
    )
