"""Figures: the share of bytes whose type and owner are right, of compiled programs with noise; docs name them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from heapdump import kernels
from heapdump.cli import cli
from tests.analyses.types.compiled import ARCHES, Compiled, compiled
from tests.analyses.types.figures import CIRCLES, QUEUES, judged, world
from tests.analyses.types.test_compiled import name_of
from tests.builders.nt_heap_layout import HeapArch


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("figures")


def labels(program: Compiled, compiler: str, evidence: str) -> dict[str, str]:
    """Class → label of its objects by type information, by a PDB, or by the place of the vtable alone."""
    if evidence == "vtable":
        tables = {
            name: int.from_bytes(data[: 8 if program.arch == "x64" else 4], "little") - program.base
            for name, data in program.objects.items()
        }
        return {name: f"vtable program.dll+{rva:#x}" for name, rva in tables.items()}
    keyword = "class" if compiler == "mingw" else "struct"
    return {name: f"{keyword} {name_of(name, compiler)} (program.dll)" for name in program.objects}


BUILDS = {
    "clang, type information": ("clang", "rtti", False),
    "clang, type information, debug layout": ("clang", "rtti", True),
    "clang, PDB alone": ("clang", "pdb", False),
    "clang, PDB alone, debug layout": ("clang", "pdb", True),
    "clang, neither": ("clang", "vtable", False),
    "GCC, type information": ("mingw", "rtti", False),
    "GCC, type information, debug layout": ("mingw", "rtti", True),
    "GCC, none": ("mingw", "vtable", False),
}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("build", BUILDS)
def test_types_and_owners_are_right(open_built, folder: Path, build: str, arch: HeapArch) -> None:
    compiler, evidence, is_debug = BUILDS[build]
    flags = (("-DDEBUG_LAYOUT",) if is_debug else ()) + (() if evidence == "rtti" else ("-fno-rtti",))
    program = compiled(folder, compiler, arch, *flags)
    made = world(program, labels(program, compiler, evidence), is_debug=is_debug, has_pdb=evidence == "pdb")
    with open_built(made.build()) as snapshot:
        namer = snapshot.namer(symbol_path=str(program.path.parent) if evidence == "pdb" else "")
        types, owners = judged(snapshot, made, namer)
    print(f"\n{build}, {arch}: types {types.precision:.2%} right, {types.recall:.2%} found; ", end="")
    print(f"owners {owners.precision:.2%} right, {owners.recall:.2%} found")
    assert types.precision >= 0.99, types.wrong.most_common(8)
    assert types.recall >= 0.9, types.wrong.most_common(8)
    assert owners.precision >= 0.99, owners.wrong.most_common(8)
    assert owners.recall >= 0.9, owners.wrong.most_common(8)


@pytest.mark.parametrize("arch", ARCHES)
def test_places_in_variables_have_the_names_that_a_pdb_gives(tmp_path, folder: Path, arch: HeapArch) -> None:
    program = compiled(folder, "clang", arch)
    made = world(program, labels(program, "clang", "rtti"), is_debug=False, has_pdb=False)
    buffer = made.block("", "", 24)
    made.write(buffer, b"a text that fits here".ljust(24, b"\0"))
    made.globals["g_records"] = made.globals["g_records"][: 900 * made.width] + made.words(
        buffer, buffer + 21, buffer + 24
    )
    dump = tmp_path / "globals.dmp"
    dump.write_bytes(made.build())

    def said(*arguments: str) -> str:
        options = ("--symbols", str(program.path.parent), "-q", "--no-cache")
        return CliRunner().invoke(cli, [*arguments, *options]).output

    owners = said("leaks", str(dump), "--group-by", "owner", "--all", "--json")
    assert "held by program.dll!g_records+" in owners
    assert ".data+" not in owners
    path = " ".join(said("refs", str(dump), hex(made.frames[-1])).split())
    assert "from program.dll!g_queues" in path
    assert "→ struct ns::Queue (program.dll) +0x" in path
    assert f"buffer of the std::vector at program.dll!g_records+{900 * made.width:#x}" in said(
        "block", str(dump), hex(buffer), "--fields"
    )


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("compiled_from", [0, 1 << 30], ids=["compiled loops", "arrays"])
def test_objects_behind_headers_of_the_debug_crt_have_their_class(
    tmp_path, monkeypatch, folder: Path, arch: HeapArch, compiled_from: int
) -> None:
    monkeypatch.setattr(kernels, "WORTH_COMPILING", compiled_from)
    program = compiled(folder, "mingw", arch, "-DDEBUG_LAYOUT")
    made = world(program, labels(program, "mingw", "rtti"), is_debug=True, has_pdb=False)
    dump = tmp_path / "debug.dmp"
    dump.write_bytes(made.build())
    answer = CliRunner().invoke(cli, ["leaks", str(dump), "--group-by", "type", "--json", "-q", "--no-cache"])
    counts = {group["key"]: group["count"] for group in json.loads(answer.output)["data"]}
    assert counts["class ns::Circle (program.dll)"] == CIRCLES
    assert counts["class ns::Queue (program.dll)"] == QUEUES
