"""Whether dumps show one process, two runs of one program, or different programs (compare.md §2).

Addresses are comparable only within one process. Groups of blocks are comparable always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from heapdump.process.model import Process


class Relation(StrEnum):
    """What dumps have in common; the value is the word of the JSON."""

    SAME_PROCESS = "same_process"
    SAME_PROGRAM = "same_program"
    DIFFERENT_PROGRAMS = "different_programs"


class IdentityWitness(StrEnum):
    """A property that all dumps of one process share; the value is the word of the JSON."""

    IMAGE = "image"
    ARCH = "arch"
    PID = "pid"
    CREATE_TIME = "create_time"
    BASES = "bases"

    @property
    def words(self) -> str:
        """The property for a person."""
        return _WORDS[self]


_WORDS = {
    IdentityWitness.IMAGE: "image",
    IdentityWitness.ARCH: "architecture",
    IdentityWitness.PID: "process id",
    IdentityWitness.CREATE_TIME: "creation time",
    IdentityWitness.BASES: "bases of the program and of ntdll",
}


@dataclass(frozen=True, slots=True)
class Comparability:
    """Whether dumps show one process.

    Attributes:
        relation: of all dumps.
        equal: properties that all dumps share.
        different: properties that differ; those in neither are not known.
    """

    relation: Relation
    equal: tuple[IdentityWitness, ...]
    different: tuple[IdentityWitness, ...]

    @property
    def is_same_process(self) -> bool:
        """True where addresses of all dumps are comparable."""
        return self.relation is Relation.SAME_PROCESS


def comparability(processes: Sequence[Process]) -> Comparability:
    """Compares image, architecture, process id, creation time, and the bases of the program and of ntdll.

    One process: nothing contradicts, and process id or creation time is known. Bases alone prove nothing: Windows uses
    the same ones for every run until it restarts.
    """
    facts = [_facts(process) for process in processes]
    equal: list[IdentityWitness] = []
    different: list[IdentityWitness] = []
    for witness in IdentityWitness:
        values = {one[witness] for one in facts}
        if None not in values:
            (equal if len(values) == 1 else different).append(witness)
        elif len(values) > 2:
            different.append(witness)
    is_known = IdentityWitness.PID in equal or IdentityWitness.CREATE_TIME in equal
    if is_known and not different:
        relation = Relation.SAME_PROCESS
    elif IdentityWitness.IMAGE in equal:
        relation = Relation.SAME_PROGRAM
    else:
        relation = Relation.DIFFERENT_PROGRAMS
    return Comparability(relation, tuple(equal), tuple(different))


def image_name(process: Process) -> str | None:
    """`app.exe`, the last part of the image path; None where it is not known."""
    return (process.image or "").replace("/", "\\").rpartition("\\")[2] or None


def _facts(process: Process) -> dict[IdentityWitness, object]:
    """The value of each witness; None where the dump does not tell it."""
    name = image_name(process)
    bases = tuple(sorted({view.arch: view.peb_fields.get("ImageBaseAddress", 0) for view in process.views}.items()))
    ntdlls = tuple(sorted(m.span.start for m in process.modules if m.name.lower() == "ntdll.dll"))
    return {
        IdentityWitness.IMAGE: name.lower() if name else None,
        IdentityWitness.ARCH: process.arch,
        IdentityWitness.PID: process.pid or None,
        IdentityWitness.CREATE_TIME: (process.misc.create_time or None) if process.misc else None,
        IdentityWitness.BASES: (bases, ntdlls) if ntdlls and all(base for _, base in bases) else None,
    }
