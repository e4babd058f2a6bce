"""Which dependencies have no wheel for 64-bit Windows, by the registry's own metadata: exit 1 with one.

    python -m tests.tools.windows_wheels [--index URL]

`pipx install heapdump` must need no compiler. Without --index the registry is the one that pip uses. Source of the
format: PEP 691 (JSON of an index), PEP 425 and 427 (tags and names of wheels).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from typing import Any

from tests.tools.project import dependencies

PYTHONS = (11, 12, 13, 14)
"""Minor versions of Python 3 that heapdump supports."""

_WHEEL = re.compile(r"[^-]+-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl")
_TYPE = "application/vnd.pypi.simple.v1+json"


def fits(file_name: str, minor: int) -> bool:
    """True for the name of a wheel that CPython 3.`minor` on 64-bit Windows installs."""
    found = _WHEEL.fullmatch(file_name)
    if found is None or not {"any", "win_amd64"} & set(found["platform"].split(".")):
        return False
    pythons, abis = found["python"].split("."), found["abi"].split(".")
    if f"cp3{minor}" in pythons and {f"cp3{minor}", "abi3", "none"} & set(abis):
        return True
    if {"py3", f"py3{minor}"} & set(pythons) and "none" in abis:
        return True
    stable = [int(one[3:]) for one in pythons if re.fullmatch(r"cp3\d+", one)] if "abi3" in abis else []
    return any(one <= minor for one in stable)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(one) for one in re.findall(r"\d+", version))


def missing(files: Iterable[dict[str, Any]], least: str) -> list[int]:
    """Minor versions of Python without a wheel of a release from `least` on; files that were withdrawn do not count."""
    names = [file["filename"] for file in files if not file.get("yanked")]
    versions = {name: found["version"] for name in names if (found := _WHEEL.fullmatch(name))}
    new = [name for name, version in versions.items() if _order(version) >= _order(least)]
    return [minor for minor in PYTHONS if not any(fits(name, minor) for name in new)]


def registry() -> str:
    """The index that pip uses: of its configuration, else its own default."""
    if named := os.environ.get("PIP_INDEX_URL"):
        return named
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode == 0 and asked.stdout.strip():
        return asked.stdout.strip()
    from pip._internal.models.index import PyPI

    return str(PyPI.simple_url)


def files_of(index: str, name: str) -> list[dict[str, Any]]:
    """The files of a package."""
    request = urllib.request.Request(f"{index.rstrip('/')}/{name}/", headers={"Accept": _TYPE})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)["files"]
    return found


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.windows_wheels")
    parser.add_argument("--index", help="of the registry, as pip's --index-url")
    index, lacking = parser.parse_args(words).index or registry(), 0
    for one in dependencies():
        without = missing(files_of(index, one.name), one.least)
        lacking += bool(without)
        words_of = ", ".join(f"3.{minor}" for minor in without)
        print(f"{one.name}>={one.least}: {f'no wheel for Python {words_of}' if without else 'wheels for all'}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
