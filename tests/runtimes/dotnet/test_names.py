"""Names that need more than a MethodTable: parameter lists, types without one, generics of another assembly."""

from __future__ import annotations

import struct

import pytest

from tests.builders.clr import ClrBuilder, Release
from tests.builders.clr_metadata import MetadataBuilder
from tests.runtimes.dotnet.plans import RELEASES

_OBJECT, _INT32, _STRING = b"\x1c", b"\x08", b"\x0e"
_SIGNATURES = {
    b"\x20\x00\x01": "()",
    b"\x00\x02\x01" + _INT32 + _STRING: "(System.Int32, System.String)",
    b"\x20\x02\x01\x1d" + _STRING + b"\x10" + _INT32: "(System.String[], System.Int32&)",
    b"\x20\x01\x01\x15\x12\x05\x01\x13\x00": "(Acme.List<TItem>)",  # TypeRef 1
    b"\x30\x01\x02\x01\x1e\x00\x0f\x01": "(TResult, System.Void*)",
    b"\x20\x01\x01\x14" + _OBJECT + b"\x02\x00\x00": "(System.Object[,])",
    b"\x20\x01\x01\x1f\x05\x1b\x00\x01\x01" + _INT32: "(method(System.Int32))",  # a modifier, a function pointer
    b"\x20\x01\x01\x12\x04": "(Acme.Box)",  # TypeDef 1
    b"\x20\x01\x01\x12\x3c": "(?)",  # no row of a table
    b"\x20\x05\x01\x08": None,  # ends too soon
    b"\x20\x01\x01" + b"\x1d" * 90: None,
    b"\x20\x01\x01\x77": None,  # no element type
    b"\x20\xff": None,
}


@pytest.mark.parametrize("release", RELEASES)
def test_parameter_lists_are_those_of_the_signatures(release: Release, open_built):
    clr, app = ClrBuilder(release), MetadataBuilder("Acme")
    app.references.append(("Acme", "List`1"))
    module = clr.assembly(app)
    token, methods, _ = app.type("Acme", "Box`1", [f"M{i}" for i in range(len(_SIGNATURES))], parameters=1)
    app.signatures |= dict(zip(methods, _SIGNATURES, strict=True))
    app.parameter_names |= {(token, 0): "TItem", (methods[4], 0): "TResult"}
    app.method_parameters.append(methods[4])
    argument = clr.type(module, app.type("Acme", "Item")[0])
    box = clr.type(module, token, methods, arguments=[argument.table])
    starts = [clr.jit(desc) for desc in box.descs]
    with open_built(clr.build()) as snapshot:
        (runtime,) = snapshot.runtimes
        for start, wanted in zip(starts, _SIGNATURES.values(), strict=True):
            found = runtime.code_at(start + 8)
            assert found is not None
            assert (found.type, found.signature) == ("Acme.Box<Acme.Item>", wanted)
        frame = snapshot.namer().name(starts[3] + 8, 0)
        assert str(frame) == "Acme!Acme.Box<Acme.Item>.M3(List<TItem>)+0x8"
        assert frame.symbol == "Acme.Box<Acme.Item>.M3"


@pytest.mark.parametrize("release", RELEASES)
def test_arrays_and_pointers_are_named_as_arguments_and_elements(release: Release, open_built):
    """Up to 3.1 an array as an argument is a TypeDesc; later it is a MethodTable, as it is as an element."""
    clr, app = ClrBuilder(release), MetadataBuilder("Acme")
    p = clr.p
    module = clr.assembly(app)
    app.type("", "<Module>")
    item = clr.type(module, app.type("Acme", "Item", ["Run"])[0], [0x06000001])
    vector = clr.type(module, 0, base_size=3 * p, component=p, element=item.table, flags=0xA0000)
    grid = clr.type(module, 0, base_size=3 * p + 24, component=p, element=item.table, flags=0x80000)
    pointer = clr.type_desc(0x0F, item.table)
    if clr.traits.mapped:
        handles = [vector.table, grid.table, pointer]
    else:
        handles = [
            clr.type_desc(0x1D, item.table, template=vector.table),
            clr.type_desc(0x14, item.table, template=grid.table),
            pointer,
        ]
    token, methods, _ = app.type("Acme", "Box`1", ["Put"], parameters=1)
    boxes = [clr.type(module, token, methods, arguments=[handle]) for handle in handles]
    jagged = clr.type(module, 0, base_size=3 * p, component=p, element=handles[0], flags=0xA0000)
    unknown = clr.type(module, token, methods, arguments=[clr.type_desc(0x13, 0)])
    wanted = dict(zip((one.table for one in boxes), ("Item[]", "Item[,,]", "Item*"), strict=True))
    for kind in (*boxes, unknown):
        clr.object("gen2", kind)
        clr.jit(kind.descs[0])
    clr.object("gen2", jagged, 2)
    with open_built(clr.build()) as snapshot:
        heap = snapshot.runtimes[0].heap
        assert heap is not None
        names = {row.type for row in heap.types()}
    assert names == {f"Acme.Box<Acme.{name}>" for name in wanted.values()} | {"Acme.Item[][]", "Acme.Box<?>"}


@pytest.mark.parametrize("release", RELEASES)
def test_a_type_of_the_loading_module_with_the_same_tokens_gives_no_name(release: Release, open_built):
    """Up to 7 the MethodTable of an instantiation names the module that loaded it, here the one of its argument."""
    clr, library, app = ClrBuilder(release), MetadataBuilder("Lib"), MetadataBuilder("App")
    own, other = clr.assembly(library), clr.assembly(app)
    box, put, _ = library.type("Lib", "Box`1", ["Put"], parameters=1)
    program, main, _ = app.type("App", "Program", ["Main"])
    assert (box, put) == (program, main)
    order = clr.type(other, app.type("App", "Order", ["Pay"])[0], [0x06000002])
    clr.type(other, program, main)
    is_loader = not clr.traits.mapped
    kind = clr.type(other if is_loader else own, box, put, arguments=[order.table], override=own if is_loader else 0)
    bare = clr.type(other, box, put, arguments=[order.table])  # the slot is not found
    starts = [clr.jit(kind.descs[0]), clr.jit(bare.descs[0]), clr.jit(order.descs[0])]
    with open_built(clr.build()) as snapshot:
        (runtime,) = snapshot.runtimes
        named, unnamed, plain = (runtime.code_at(start) for start in starts)
        assert named is not None and unnamed is not None and plain is not None
        assert (named.type, named.method, named.assembly) == ("Lib.Box<App.Order>", "Put", "Lib")
        assert (unnamed.type, unnamed.method, unnamed.trust) == (None, None, "guess")
        assert (plain.type, plain.method) == ("App.Order", "Pay")


def test_words_of_a_signature_that_is_long_are_read():
    """A length above 127 has two bytes (II.23.2)."""
    from heapdump.runtimes.dotnet.metadata import Metadata

    metadata = MetadataBuilder("Acme")
    _, (token,), _ = metadata.type("Acme", "Wide", ["Run"])
    root = metadata.build()
    head = root.index(b"#~\0\0") - 8
    offset, size = struct.unpack_from("<II", root, head)
    blobs = b"\0" + struct.pack(">H", 0x8000 | 203) + b"\x20\x80\xc8\x01" + _INT32 * 199
    assert Metadata(root[offset : offset + size], b"\0" * 64, blobs).signature(token) == blobs[3:]


def test_methods_of_high_tokens_decide_the_number_of_token_bits(open_built):
    """Tokens below 0x1000 are the same in 12 and in 14 bits; here only the last types have higher ones."""
    clr, app = ClrBuilder("8"), MetadataBuilder("Acme")
    module = clr.assembly(app)
    starts = []
    for i in range(97):
        token, methods, _ = app.type("Acme", f"T{i}", ["Run"])
        starts.append(clr.jit(clr.type(module, token, methods).descs[0]))
    app.type("Acme", "Wide", ["Fill"] * 0x2000)
    token, methods, _ = app.type("Acme", "Last", ["End"])
    start = clr.jit(clr.type(module, token, methods).descs[0])
    with open_built(clr.build()) as snapshot:
        (runtime,) = snapshot.runtimes
        names = [(found.type, found.method) for at in (start, starts[0]) if (found := runtime.code_at(at))]
    assert names == [("Acme.Last", "End"), ("Acme.T0", "Run")]
