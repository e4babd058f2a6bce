"""Names of types and methods of one CLR: `Namespace.Outer+Inner<Argument>`, `T[,]`, `Namespace.Type.Method`.

A name is exact when two structures agree: the type that declares a method by the metadata is the type of its
MethodTable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

from heapdump.memory.space import AddressSpace
from heapdump.process.model import Process
from heapdump.runtimes.dotnet.assemblies import Assemblies, Assembly
from heapdump.runtimes.dotnet.descriptor import Descriptor
from heapdump.runtimes.dotnet.signatures import parameter_list
from heapdump.runtimes.dotnet.structures import DIALECTS, DYNAMIC, Method, MethodTable, Structures
from heapdump.runtimes.dotnet.type_descs import type_desc
from heapdump.trust import Trust

_DEPTH, _SAMPLE = 8, 32
_SLOTS, _VIRTUALS_A_TABLE = 8, 8
"""Optional slots of a MethodTable, and virtual methods for each pointer before them (methodtable.h)."""

DYNAMIC_CLASS = "DynamicClass"


@dataclass(frozen=True, slots=True)
class MethodName:
    """The name of a method.

    Attributes:
        type: full name of its type; None where it is not known.
        method: its name; None where it is not known.
        assembly: simple name of its assembly; None where it is not known.
        token: of its MethodDef; 0 for none.
        trust: in the name.
        signature: types of its parameters, `(System.Int32, T)`; None where they are not known.
    """

    type: str | None
    method: str | None
    assembly: str | None
    token: int
    trust: Trust
    signature: str | None = None

    @property
    def symbol(self) -> str:
        """`Namespace.Type.Method`, or the part of it that is known."""
        if self.assembly is None and self.type == DYNAMIC_CLASS:
            return self.method or "?"
        return f"{self.type or '?'}.{self.method or f'{self.token:#x}'}"


class Names:
    """Names of one CLR in one dialect."""

    def __init__(self, process: Process, structures: Structures, descriptor: Descriptor) -> None:
        """Reads nothing yet."""
        self.structures = structures
        self.assemblies = Assemblies(process, structures, descriptor)
        self.type_of = cache(self._type_of)
        self.method_of = cache(self._method_of)
        self.home = cache(self._home)

    def matches(self, method: Method) -> bool:
        """True when the metadata of the type's own module says that the method belongs to the type."""
        table = self.structures.method_table(method.table)
        return table is not None and bool(table.token) and self._owner(table, method.token) is not None

    def _owner(self, table: MethodTable, token: int) -> Assembly | None:
        """The assembly in whose metadata the method belongs to the MethodTable's type; None where none agrees.

        A generic type must have as many parameters as the MethodTable has arguments: the module that loaded it may
        have a type and a method of the same tokens.
        """
        for module in (*self._slots(table), *self._modules(table)):
            found = self.assemblies.of_module(module)
            owner = found.metadata.owner_of_method(token) if found is not None else None
            if found is None or owner is None or owner != (table.token or owner):
                continue
            if not table.has_arguments or self._has_parameters(found, table):
                return found
        return None

    def _modules(self, table: MethodTable) -> Iterator[int]:
        """The module of the canonical MethodTable, and that of the MethodTable itself."""
        canonical = self.structures.method_table(table.canonical) or table
        yield canonical.module
        if table.module != canonical.module:
            yield table.module

    def _has_parameters(self, home: Assembly, table: MethodTable) -> bool:
        """True when a type has as many generic parameters as its MethodTable has known arguments."""
        arguments = self.structures.type_arguments(table) if table.has_arguments else []
        count = home.metadata.generic_parameters(table.token)
        return count > 0 if arguments is None else count == len(arguments)

    def _slots(self, table: MethodTable) -> Iterator[int]:
        """Modules in the optional slots of a generic type's MethodTable and of its canonical one.

        Up to 7 the module of a generic type over types of another assembly is there (`ModuleOverride`), behind the
        tables of virtual methods; that of the MethodTable itself is then the one that loaded it.
        """
        pointer, space = self.structures.pointer, self.structures.space
        for one in dict.fromkeys((table.canonical, table.address)) if table.has_arguments else ():
            virtuals = space.try_integer(one + 0xC, 2) or 0
            count = -(-virtuals // _VIRTUALS_A_TABLE) + _SLOTS
            data = space.try_read(one + 0x10 + 4 * pointer, count * pointer) or b""
            for i in range(0, len(data), pointer):
                value = int.from_bytes(data[i : i + pointer], "little")
                for place in (value, self.structures.relative(one + 0x10 + 4 * pointer + i, value)):
                    if place > 0xFFFF and place % pointer == 0 and self.assemblies.has_name(place):
                        yield place

    def _method_of(self, desc: int) -> MethodName | None:
        """The name of a MethodDesc; None where there is none."""
        method = self.structures.method(desc)
        if method is None:
            return None
        if method.kind == DYNAMIC:
            name = self.structures.dynamic_name(method)
            return MethodName(DYNAMIC_CLASS, name, None, 0, Trust.EXACT) if name else None
        table = self.structures.method_table(method.table)
        if table is None or not method.token:
            return None
        home = self._owner(table, method.token)
        if home is None:
            return MethodName(None, None, None, method.token, Trust.GUESS)
        arguments = self._arguments(self.structures.method_arguments(method), 0)
        name, type_ = home.metadata.method_name(method.token), self._instance(home, table, 0)
        is_whole = table.token and "?" not in f"{type_}{arguments}"
        return MethodName(
            type_, f"{name}{arguments}" if name else None, home.name, method.token,
            Trust.EXACT if is_whole else Trust.DERIVED, parameter_list(home.metadata, method.token),
        )  # fmt: skip

    def _home(self, address: int) -> tuple[Assembly, bool] | None:
        """(assembly of a MethodTable's type, whether a method of the type confirms it); None where it is not known.

        Without a method the number of generic parameters must agree.
        """
        table = self.structures.method_table(address)
        if table is None or not table.token:
            return None
        first = self.structures.first_method(table)
        if first is not None and first.token:
            found = self._owner(table, first.token)
            return (found, True) if found else None
        for module in (*self._slots(table), *self._modules(table)):
            home = self.assemblies.of_module(module)
            if home is not None and self._has_parameters(home, table):
                return home, False
        return None

    def _type_of(self, address: int) -> str | None:
        """The name of a MethodTable's type; None where it is none, or where nothing names it."""
        return self._named(address, 0)

    def _named(self, address: int, depth: int) -> str | None:
        table = self.structures.method_table(address) if depth < _DEPTH else None
        if table is None:
            return None
        if table.is_array:
            element = self._handle(table.element, depth + 1)
            rank = table.rank(self.structures.pointer)
            return f"{element}[{',' * (rank - 1) if rank > 1 else '*' if rank else ''}]"
        home = self.home(address)
        return self._instance(home[0], table, depth) if home else None

    def _instance(self, home: Assembly, table: MethodTable, depth: int) -> str | None:
        name = home.metadata.type_name(table.token) if table.token else None
        if name is None or not table.has_arguments:
            return name
        found = self.structures.type_arguments(table)
        unknown = f"<{','.join('?' * home.metadata.generic_parameters(table.token))}>"
        return name + (self._arguments(found, depth) if found else unknown)

    def _arguments(self, handles: Sequence[int], depth: int) -> str:
        """`<A,B>`; nothing without arguments."""
        return f"<{','.join(self._handle(one, depth + 1) for one in handles)}>" if handles else ""

    def _handle(self, handle: int, depth: int) -> str:
        """The name of a type handle; `?` for types without a name (type variables, function pointers)."""
        if not handle & 2:
            return self._named(handle, depth) or "?"
        found = type_desc(self.structures, handle) if depth < _DEPTH else None
        return f"{self._handle(found.element, depth + 1)}{found.suffix}" if found else "?"


@dataclass(frozen=True, slots=True)
class NameEvidence:
    """The evidence that a vote on the dialect uses.

    Attributes:
        descs: addresses of MethodDescs that code names.
        words: gives words of the managed heap, some of which are addresses of MethodTables.
    """

    descs: Sequence[int]
    words: Callable[[], Sequence[int]]


def _distinctive(structures: Structures, descs: Sequence[int]) -> list[int]:
    """Some MethodDescs, among them those of the highest tokens: low ones are the same in several dialects."""
    high = sorted(descs, key=structures.token_parts, reverse=True)[:_SAMPLE]
    return list(dict.fromkeys([*high, *descs[:: max(1, len(descs) // _SAMPLE)][:_SAMPLE]]))


def vote(process: Process, space: AddressSpace, descriptor: Descriptor, evidence: NameEvidence) -> Names:
    """The names in the dialect that most methods confirm: those of code, else those of types in the heap."""
    words = cache(evidence.words)
    readers = {dialect: Names(process, Structures(space, descriptor, dialect), descriptor) for dialect in DIALECTS}
    descs = _distinctive(readers[DIALECTS[0]].structures, evidence.descs)

    def by_code(names: Names) -> int:
        """How many methods of the code belong to the type of their MethodTable."""
        methods = (names.structures.method(desc) for desc in descs)
        return sum(names.matches(method) for method in methods if method and method.kind != DYNAMIC)

    def by_heap(names: Names) -> int:
        """How many types of objects declare the first method that their EEClass leads to."""
        structures = names.structures
        tables = (found for word in words() if (found := structures.method_table(word)))
        methods = (method for table in tables if (method := structures.first_method(table)))
        return sum(names.matches(method) for method in islice(methods, _SAMPLE))

    for score in (by_code, by_heap):
        scores = {dialect: score(names) for dialect, names in readers.items()}
        best = max(scores, key=lambda dialect: scores[dialect])
        if scores[best]:
            return readers[best]
    return readers[DIALECTS[0]]
