"""The name of a cluster, made of what is typical of it, and its fingerprint.

`48-byte node: list links +0/+8 to its own kind, text at +16, pointer to 1.5 MB buffers at +40`. The fingerprint is made
of facts that stay from dump to dump: the size, which words are pointers, text or floating point, and the constants of
modules by name and offset. Clusters of several heaps with one fingerprint are one kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from heapdump.analyses.clusters.fields import ClusterField
from heapdump.analyses.clusters.find import Clusters
from heapdump.analyses.clusters.letters import Letter
from heapdump.process.model import Process
from heapdump.process.symbols.rtti import class_of_vtable, offset_in_object
from heapdump.wording import short_size

_MOST_PARTS = 4
_IN_BYTES = 10_000
"""Sizes below are named in bytes, larger ones in units of 1024."""

_SHORT = 512
_FINGERPRINT = {Letter.POINTER: "P", Letter.MODULE: "M", Letter.TEXT: "T", Letter.FLOAT: "F"}
_PLAIN_WORDS = {Letter.TEXT: "text", Letter.TIME: "time", Letter.FLOAT: "floating point", Letter.NUMBER: "number"}


@dataclass(frozen=True, slots=True)
class ClusterName:
    """The name of a cluster.

    Attributes:
        label: size, kind and typical fields, in words.
        fingerprint: 8 hexadecimal digits, the same in other dumps of the program.
        noun: kind alone: `node`, `object`, `record`, `text`, `buffer`.
        is_structured: True where pointers are typical of it.
    """

    label: str
    fingerprint: str
    noun: str
    is_structured: bool


def names_of(process: Process, clusters: Clusters, fields: Sequence[Sequence[ClusterField]]) -> list[ClusterName]:
    """The names of all clusters, by number; two kinds never have one label."""
    sizes = clusters.size.tolist()
    nouns = [_noun(number, size, found) for number, (size, found) in enumerate(zip(sizes, fields, strict=True))]
    descriptions = [f"{_size(size)} {noun}" for size, noun in zip(sizes, nouns, strict=True)]
    out: list[ClusterName] = []
    first: dict[str, str] = {}
    for number, found in enumerate(fields):
        fingerprint = _fingerprint(process, clusters, number, found)
        traits = _traits(process, int(clusters.width[number]), number, found, descriptions)
        label = f"{descriptions[number]}: {', '.join(traits)}" if traits else descriptions[number]
        if first.setdefault(label, fingerprint) != fingerprint:
            label = f"{label} (#{fingerprint})"
        is_structured = any(one.letter in (Letter.POINTER, Letter.MODULE) for one in found)
        out.append(ClusterName(label, fingerprint, nouns[number], is_structured))
    return out


def _size(size: int) -> str:
    return f"{size:,}-byte" if size < _IN_BYTES else short_size(size)


def _noun(number: int, size: int, fields: Sequence[ClusterField]) -> str:
    letters = {field.letter for field in fields}
    if any(field.target == number for field in fields):
        return "node"
    if fields and fields[0].offset == 0 and fields[0].letter is Letter.MODULE:
        return "object"
    if letters & {Letter.POINTER, Letter.MODULE}:
        return "record"
    if letters == {Letter.TEXT}:
        return "text"
    return "record" if size <= _SHORT and len(letters) > 1 else "buffer"


def _fingerprint(process: Process, clusters: Clusters, number: int, fields: Sequence[ClusterField]) -> str:
    words = []
    for field in fields:
        code = _FINGERPRINT.get(field.letter)
        if code is not None:
            own = "S" if field.target == number else code
            constant = process.where(field.value) if field.value is not None else ""
            words.append(f"{field.offset}{own}{constant}")
    key = f"{clusters.width[number]} {clusters.size[number]} {' '.join(words)}"
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def _constant(process: Process, width: int, value: int) -> tuple[str, int]:
    """(the class whose vtable lies at an address, bytes from an object to its pointer to it); else (the place, 0)."""
    view = next((view for view in process.views if view.pointer_bytes == width), None)
    found = class_of_vtable(process, view, value) if view else None
    if view is None or found is None:
        return process.where(value), 0
    return f"{found.kind} {found.name} ({found.module.name})", offset_in_object(process, view, value) or 0


def _traits(
    process: Process, width: int, number: int, fields: Sequence[ClusterField], descriptions: Sequence[str]
) -> list[str]:
    """The typical fields in words, the most distinctive first, at most four."""
    traits = _links([field for field in fields if field.target == number])
    offsets_of: dict[tuple[str, str], list[ClusterField]] = {}
    for field in fields:
        if field.target == number:
            continue
        if field.letter is Letter.MODULE and field.value is not None:
            place, inside = _constant(process, width, field.value)
            offsets_of.setdefault((place, place), []).append(replace(field, offset=field.offset - inside))
        elif field.letter is Letter.MODULE:
            offsets_of.setdefault(("pointer into a module", "pointers into modules"), []).append(field)
        elif field.letter is Letter.POINTER:
            target = _plural(descriptions[field.target]) if field.target >= 0 else "blocks"
            offsets_of.setdefault((f"pointer to {target}", f"pointers to {target}"), []).append(field)
    traits += [
        f"{one if len(found) == 1 else many} at {_offsets(_once(found))}" for (one, many), found in offsets_of.items()
    ]
    for letter, word in _PLAIN_WORDS.items():
        offset = next((field.offset for field in fields if field.letter is letter), None)
        if offset is not None and not (traits and letter is Letter.NUMBER):
            traits.append(f"{word} at +{offset}")
    return [*traits[:_MOST_PARTS], "…"] if len(traits) > _MOST_PARTS else traits


def _once(fields: Sequence[ClusterField]) -> list[ClusterField]:
    """The fields, of those at one offset the first: a whole object has several vtables."""
    return list({field.offset: field for field in reversed(fields)}.values())[::-1]


def _plural(kind: str) -> str:
    return kind if kind.endswith("text") else f"{kind}s"


def _offsets(fields: Sequence[ClusterField]) -> str:
    """`+0/+8`; of many the first and the last."""
    if len(fields) > _MOST_PARTS:
        return f"+{fields[0].offset} to +{fields[-1].offset}"
    return "/".join(f"+{field.offset}" for field in fields)


def _links(links: Sequence[ClusterField]) -> list[str]:
    """The pointers of a cluster to itself: those of a list, of a tree, or others."""
    if not links:
        return []
    back = {field.offset: field.back for field in links}
    points_back = [field for field in links if field.back is not None and back[field.back] == field.offset]
    word = "links" if len(links) > 1 else "link"
    if len(links) == 2 and len(points_back) == 2:
        word = "list links"
    elif 3 <= len(links) <= _MOST_PARTS and _has_parent(links):
        word = "tree links"
    return [f"{word} {_offsets(links)} to its own kind"]


def _has_parent(links: Sequence[ClusterField]) -> bool:
    """True where the targets of two fields or more point back by one field, which holds the parent."""
    parents = [field.back for field in links if field.back is not None]
    return any(parents.count(parent) >= 2 for parent in parents)
