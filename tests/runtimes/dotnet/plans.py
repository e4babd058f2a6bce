"""A program under a built CLR: two assemblies, generics, arrays, strings, fields, dynamic methods."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.builders.clr import ClrBuilder, Release, TypePart
from tests.builders.clr_metadata import MetadataBuilder

RELEASES: tuple[Release, ...] = ("2.1", "2.2", "3.1", "8", "10")


@dataclass
class Plan:
    """What was built. `methods`: start → (type, method, token, MethodDesc, size); `objects`: address → (type, bytes)."""

    clr: ClrBuilder
    methods: dict[int, tuple[str | None, str, int, int, int]] = field(default_factory=dict)
    objects: dict[int, tuple[str, int]] = field(default_factory=dict)
    types: dict[str, TypePart] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)


def plan(release: Release, *, single_file: bool = False, flat: bool = False, shift: int = 0) -> Plan:
    """The program, for every release the same. `shift`: bytes before the first jitted method."""
    clr = ClrBuilder(release, single_file=single_file)
    clr.skip_code(shift)
    made = Plan(clr)
    core, app = MetadataBuilder("System.Private.CoreLib"), MetadataBuilder("Acme.Orders")
    p = clr.p
    base_library, core_module = _library(made, core, flat=flat)
    list_token, list_methods, _ = core.type("System", "List`1", ["Add"], parameters=1)
    module = clr.assembly(app, flat=flat)
    app.type("", "<Module>")
    token, methods, fields = app.type("Acme.Orders", "Order", ["Pay", ".ctor", "Cancel"], ["_handle", "_total"])
    order = clr.type(
        module, token, methods, base_size=4 * p, fields=[(fields[0], 0), (fields[1], p)],
        parent=made.types["System.Object"].table, flags=0x100000,
    )  # fmt: skip
    _methods(made, "Acme.Orders.Order", order, ["Pay", ".ctor", "Cancel"], methods)
    outer = token
    token, methods, _ = app.type("", "<Start>c__Closure0", ["<>m__0"], outer=outer)
    closure = clr.type(module, token, methods)
    _methods(made, "Acme.Orders.Order+<Start>c__Closure0", closure, ["<>m__0"], methods)
    token, methods, _ = app.type("Acme.Orders", "Ledger`1", ["Post"], parameters=1)
    ledger = clr.type(module, token, methods, arguments=[base_library["System.__Canon"].table])
    _methods(made, "Acme.Orders.Ledger<System.__Canon>", ledger, ["Post"], methods)
    if not clr.traits.mapped:  # the loader's module, and the type's own in a slot
        lists = clr.type(module, list_token, list_methods, arguments=[order.table], override=core_module)
        _methods(made, "System.List<Acme.Orders.Order>", lists, ["Add"], list_methods)
        made.types["System.List<Acme.Orders.Order>"] = lists
    ledger_of = clr.type(module, token, canonical=ledger, arguments=[order.table])
    arrays = clr.type(module, 0, base_size=3 * p, component=p, element=order.table, flags=0xA0000)
    grid = clr.type(module, 0, base_size=3 * p + 16, component=p, element=order.table, flags=0x80000)
    made.types |= {
        "Acme.Orders.Order": order, "Acme.Orders.Ledger<Acme.Orders.Order>": ledger_of,
        "Acme.Orders.Order[]": arrays, "Acme.Orders.Order[,]": grid,
    }  # fmt: skip
    _code(made, order)
    _objects(made)
    return made


def _library(made: Plan, core: MetadataBuilder, *, flat: bool) -> tuple[dict[str, TypePart], int]:
    """Object, String and __Canon, in an assembly of their own, and its Module."""
    clr, p = made.clr, made.clr.p
    module = clr.assembly(core, flat=flat)
    core.type("", "<Module>")
    for name, size, component in (("Object", 3 * p, 0), ("String", 2 * p + 6, 2), ("__Canon", 3 * p, 0)):
        token, methods, _ = core.type("System", name, ["ToString", "Equals"])
        made.types[f"System.{name}"] = clr.type(module, token, methods, base_size=size, component=component)
        _methods(made, f"System.{name}", made.types[f"System.{name}"], ["ToString", "Equals"], methods)
    return made.types, module


def _methods(made: Plan, type_: str, part: TypePart, names: list[str], tokens: list[int]) -> None:
    for name, token, desc in zip(names, tokens, part.descs, strict=True):
        size = 0x60 + 0x100 * (name == "Post")
        made.methods[made.clr.jit(desc, size)] = (type_, name, token, desc, size)


def _code(made: Plan, owner: TypePart) -> None:
    """A stub, a method with handlers, and a dynamic one."""
    clr = made.clr
    made.places["stub"] = clr.stub()
    desc = clr.dynamic(owner, "IL_STUB_PInvoke")
    made.methods[clr.jit(desc)] = ("DynamicClass", "IL_STUB_PInvoke", 0, desc, 0x60)
    type_, name, token, desc, _ = next(value for value in made.methods.values() if value[1] == "Pay")
    start = clr.jit(desc, 0x40, funclets=1 if clr.p == 8 else 0, spare=2)
    made.methods[start] = (type_, name, token, desc, 0x40)
    made.places["tier1"], made.places["handler"] = start, start + 0x44


def _objects(made: Plan) -> None:
    """Objects in every generation, free space, gaps, a pinned one, marks of the collector."""
    clr, types = made.clr, made.types

    def add(generation: str, name: str, length: int | None = None, content: bytes = b"", mark: int = 0) -> int:
        """An object, and what is true of it."""
        kind = types[name]
        at = clr.object(generation, kind, length, content, mark=mark)
        size = max(kind.base_size + (length or 0) * kind.component, 3 * clr.p)
        made.objects[at] = (name, -(-size // clr.p) * clr.p)
        return at

    order = 0
    for i in range(5):
        content = (0x12340000 + i).to_bytes(clr.p, "little")
        order = add("gen2", "Acme.Orders.Order", None, content, mark=i & 1)
    clr.object("gen2", clr.free, 40)
    made.places["text"] = add("gen2", "System.String", 7, "späteß7".encode("utf-16-le"))
    add("gen2", "Acme.Orders.Ledger<Acme.Orders.Order>", None, order.to_bytes(clr.p, "little"))
    add("gen1", "Acme.Orders.Order[,]", 6)
    clr.gap("gen0", 8 * clr.p)
    add("gen0", "System.Object")
    clr.gap("gen0", 3 * clr.p)
    add("gen0", "System.String", 0)
    if "System.List<Acme.Orders.Order>" in types:
        add("gen0", "System.List<Acme.Orders.Order>")
    add("large", "Acme.Orders.Order[]", 3, b"" if clr.p == 4 else bytes(4) + order.to_bytes(8, "little"))
    made.places["order"] = order
