"""The software bill of materials of the environment that is installed, as CycloneDX 1.5.

`make dist` writes it beside the wheel: python -m tests.tools.sbom > dist/heapdump.cdx.json
It holds heapdump, its dependencies without extras, and theirs, with the versions that are installed here.
"""

from __future__ import annotations

import json
import re
from importlib import metadata
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _needed(name: str) -> list[str]:
    """The dependencies of an installed package that are installed, without those of extras."""
    out = []
    for requirement in metadata.requires(name) or ():
        found = _NAME.match(requirement)
        if found and "extra ==" not in requirement:
            try:
                metadata.distribution(found[0])
            except metadata.PackageNotFoundError:  # of another system or Python
                continue
            out.append(_normal(found[0]))
    return sorted(set(out))


def licence(name: str) -> str:
    """The licence of an installed package, as its metadata say it."""
    about = metadata.metadata(name)
    expression, own = (about.get_all(field) or [""] for field in ("License-Expression", "License"))
    classified = [one.rsplit(" :: ", 1)[1] for one in about.get_all("Classifier") or () if one.startswith("License ::")]
    return str(expression[0] or (classified[0] if classified else own[0].split("\n")[0]))


def bill(root: str) -> dict[str, Any]:
    """The document about an installed package."""
    graph: dict[str, list[str]] = {}
    waiting = [_normal(root)]
    while waiting:
        name = waiting.pop()
        if name not in graph:
            graph[name] = _needed(name)
            waiting += graph[name]

    def component(name: str, kind: str) -> dict[str, Any]:
        """One package."""
        version = metadata.version(name)
        purl = f"pkg:pypi/{name}@{version}"
        return {
            "type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "licenses": [{"license": {"name": licence(name)}}],
        }  # fmt: skip

    references = {name: f"pkg:pypi/{name}@{metadata.version(name)}" for name in graph}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(_normal(root), "application")},
        "components": [component(name, "library") for name in sorted(graph) if name != _normal(root)],
        "dependencies": [
            {"ref": references[name], "dependsOn": [references[one] for one in graph[name]]} for name in sorted(graph)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(bill("heapdump"), indent=1))
