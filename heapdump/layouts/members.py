"""Every structure of a build with all its members, for a person who reads memory by hand.

The layout files hold only the members that code reads. `complete/` holds the others. `<arch>.json` there has structures
of public headers that are equal in all versions; `<arch>_<build>.json` has the structures that differ from the build
before, and the names of those that were removed. Where the two disagree, the layout file is right: recorded dumps
confirm it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from heapdump.layouts import Field, Layout, Struct, layout_names, load


@cache
def all_structs(name: str) -> Mapping[str, Struct]:
    """Name → structure of a layout, with all members that are known."""
    arch = name.split("_")[0]
    found = _listed(arch)[0]
    for build in layout_names(arch):
        more, removed = _listed(build)
        found = {key: struct for key, struct in found.items() if key not in removed} | more
        if build == name:
            break
    own = load(name)
    return {key: merged(found.get(key), own.structs.get(key), own) for key in sorted({*found, *own.structs})}


def _listed(file: str) -> tuple[dict[str, Struct], set[str]]:
    """(name → structure, names of removed structures) of a file in `complete/`; both empty without the file."""
    path = files("heapdump.layouts") / "complete" / f"{file}.json"
    if not path.is_file():
        return {}, set()
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    structs = {
        name: Struct(
            name, body["size"], {field: Field(offset, kind) for field, (offset, kind) in body["fields"].items()},
            body["source"], body["confidence"],
        )
        for name, body in document["structs"].items()
    }  # fmt: skip
    return structs, set(document.get("removed", ()))


def merged(complete: Struct | None, own: Struct | None, layout: Layout) -> Struct:
    """The structure with the members of both; where they contradict each other, that of the layout (`own`)."""
    if own is None or complete is None:
        found = own or complete
        assert found is not None, layout.name
        return found
    alike = complete.size == own.size and all(
        complete.fields[name].offset == field.offset for name, field in own.fields.items() if name in complete.fields
    )
    if not alike:
        return own
    fields = dict(complete.fields) | {name: field for name, field in own.fields.items() if name not in complete.fields}
    return Struct(own.name, own.size, fields, complete.source, complete.confidence)
