"""SARIF 2.1.0: findings for code scanning and CI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from heapdump.render.machine import encoded
from heapdump.render.view import Record

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif_document(records: Iterable[Record], rules: Mapping[str, str], tool: str, dump: str) -> str:
    """The document of `check` records: one result for each incident. `rules`: bug or kind → its sentence. ASCII only.

    The first record of an incident gives the place and the message, the others are related locations.
    """
    groups: dict[Any, list[Record]] = {}
    for number, record in enumerate(records):
        groups.setdefault(record.get("incident") or f"record {number}", []).append(record)
    results = [_incident(group, dump) for group in groups.values()]
    used = sorted({result["ruleId"] for result in results})
    driver = {
        "name": "heapdump",
        "version": tool,
        "rules": [{"id": kind, "shortDescription": {"text": rules.get(kind, kind)}} for kind in used],
    }
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "utf16CodeUnits"}
    return encoded({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _incident(records: list[Record], dump: str) -> dict[str, Any]:
    """The result of one incident."""
    result = _result(records[0], dump)
    result["level"] = "error" if any(record["severity"] == "error" for record in records) else "warning"
    if len(records) > 1:
        result["relatedLocations"] = [
            {"physicalLocation": _place(record, dump), "message": {"text": record["message"]}} for record in records[1:]
        ]
    return result


def _place(record: Record, dump: str) -> dict[str, Any]:
    return {
        "artifactLocation": {"uri": _uri(dump)},
        "address": {"absoluteAddress": int(record["address"], 16), "length": record["length"]},
    }


def _result(record: Record, dump: str) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": _place(record, dump)}
    names = [_frame_name(frame) for frame in record["frames"]]
    if names:
        location["logicalLocations"] = [{"fullyQualifiedName": names[0], "kind": "function"}]
    result: dict[str, Any] = {
        "ruleId": record.get("bug") or record["kind"],
        "level": record["severity"],
        "message": {"text": record["message"]},
        "locations": [location],
        "partialFingerprints": {"heapdump/1": record["id"]},
    }
    if names:
        result["stacks"] = [
            {"frames": [_stack_frame(frame, name) for frame, name in zip(record["frames"], names, strict=True)]}
        ]
    return result


def _uri(path: str) -> str:
    """A path as an URI: relative as it is, `C:\\x` and `\\\\server\\x` as files; what an URI cannot hold is escaped."""
    unified = path.replace("\\", "/")
    if unified[1:3] == ":/":
        return f"file:///{unified[0]}:{_quoted(unified[2:])}"
    return f"file:{_quoted(unified)}" if unified.startswith("//") else _quoted(unified)


def _quoted(path: str) -> str:
    return quote(path, errors="replace")  # names of files may hold what is no text


def _frame_name(frame: Record) -> str:
    module = frame["module"] or ""
    return (
        f"{module}!{frame['symbol']}"
        if frame["symbol"]
        else f"{module}+{frame['offset']:#x}"
        if module
        else frame["address"]
    )


def _stack_frame(frame: Record, name: str) -> dict[str, Any]:
    place: dict[str, Any] = {"address": {"absoluteAddress": int(frame["address"], 16)}}
    if frame["file"]:
        place |= {"artifactLocation": {"uri": _uri(frame["file"])}, "region": {"startLine": frame["line"] or 1}}
    return {"location": {"physicalLocation": place, "logicalLocations": [{"fullyQualifiedName": name}]}}
