"""Machine code from files: forms of arguments, damaged files, and the list of forms that is compiled ahead."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from heapdump import kernels
from heapdump.analyses.clusters import sample as clusters_sample
from heapdump.analyses.graph import unreachable
from heapdump.cli import run
from heapdump.heaps.nt import entry_check, traces
from heapdump.kernels import ahead, code_files, forms
from heapdump.kernels.compiler import Dispatcher
from tests.analyses.containers.framework_containers import FrameworkContainers
from tests.analyses.containers.test_library_containers import EVERY
from tests.analyses.types.test_block_types import ARCHES
from tests.asking import opened_once
from tests.builders import ProcessBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.nt_heap_layout import HeapArch
from tests.heaps.nt.plans import FIXED, Generation, heap_of
from tests.patching import poke
from tests.runtimes.java.test_java import built as built_java
from tests.runtimes.java.test_java import some_objects
from tests.samples import SAMPLES

LIST = Path(kernels.__file__).with_name("forms.json")
COMMANDS = [
    ["heaps"], ["check"], ["retained"], ["waste"], ["managed"], ["triage"], ["summary"], ["blocks", "--stat"],
    ["leaks", "--unreachable"], *(["leaks", "--group-by", by] for by in ("stack", "type", "structure", "owner", "size")),
    ["retained", "--group-by", "owner"], ["leaks", "--unreachable", "--use-unaligned"], ["refs", "{block:#x}"],
]  # fmt: skip

USUAL = ("service.dmp", "stacks.dmp", "growth.dmp", "x64-False.dmp")
"""Dumps that call kernels as those of usual programs do: 64-bit, some with containers."""


class Pair(NamedTuple):
    first: Any
    second: Any


def add(values: Any, pair: Pair, more: int) -> tuple[int, int]:
    total = more
    for i in range(len(values)):
        total += values[i] + pair.first[i]
    return total, pair.second


FEW, MANY = 3, 9


def choose(values: Any) -> int:
    found = FEW
    for i in range(len(values)):
        if values[i] > 100:
            found = MANY
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where machine code is kept."""
    pytest.importorskip("numba")
    if not code_files.is_possible():
        pytest.skip("code from files was not tried on this system")
    monkeypatch.setattr(code_files, "_folders", lambda: (tmp_path,))
    return tmp_path


def test_arguments_are_split_into_form_and_values() -> None:
    array = np.arange(6, dtype=np.int64)
    form, values = forms.split((array[::2], Pair(array.view(np.uint64).reshape(2, 3), True), np.uint32(7)))
    assert form == f"i8:1A,{__name__}:Pair(u8:2C,i),i"
    address = array.ctypes.data
    assert values == [0, 0, 3, 8, address, 3, 16, 0, 0, 6, 8, address, 2, 3, 24, 8, 1, 7]


@pytest.mark.parametrize("value", [1.0, "1", None, 1 << 63, np.zeros(2), np.zeros(2, ">i8")])
def test_other_arguments_are_left_to_numba(value: object) -> None:
    with pytest.raises(forms.UnknownFormError):
        forms.split((value,))


def test_code_from_a_file_says_what_plain_python_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(kernels, "_LISTENERS", [said.append])
    values = np.arange(100, dtype=np.int64)
    arguments = (values[::-3], Pair(values.astype(np.uint16), 5), -4)
    plain = add(*arguments)
    first, second = kernels._Compiled(add), kernels._Compiled(add)
    assert first(*arguments) == plain
    assert len(list(folder.iterdir())) == len(said) == 1
    assert second(arguments[0], pair=arguments[1], more=arguments[2]) == plain
    assert len(said) == 1, "read from the file"
    assert second(values, Pair(values, 5), -4) == add(values, Pair(values, 5), -4)
    assert len(list(folder.iterdir())) == len(said) == 2


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: b"", lambda data: data[:200] + b"x" + data[201:]]
)
def test_a_damaged_file_is_compiled_anew(folder: Path, change: Callable[[bytes], bytes]) -> None:
    values = np.arange(10, dtype=np.int64)
    assert kernels._Compiled(add)(values, Pair(values, 1), 0) == (90, 1)
    (path,) = folder.iterdir()
    path.write_bytes(change(path.read_bytes()))
    assert kernels._Compiled(add)(values, Pair(values, 1), 0) == (90, 1)
    assert code_files.read(add, forms.split((values, Pair(values, 1), 0))[0]) is not None


@pytest.mark.usefixtures("folder")
def test_a_command_says_that_it_compiles(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        kernels, "announce_compiling", lambda say: monkeypatch.setattr(kernels, "_LISTENERS", [say])
    )  # see conftest.py
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    monkeypatch.setattr(kernels, "_compiled", kernels._Compiled)
    dump = tmp_path_factory.mktemp("dump") / "a.dmp"
    SAMPLES["service"](dump)
    run(["heaps", str(dump), "--no-cache"])
    assert capfd.readouterr().err.count(kernels.COMPILING) == 1
    run(["heaps", str(dump), "--no-cache"])
    assert kernels.COMPILING not in capfd.readouterr().err


@pytest.mark.parametrize(("last", "expected"), [(100, FEW), (101, MANY)])
def test_a_variable_may_get_several_constants_of_a_module(folder: Path, last: int, expected: int) -> None:
    values = np.array([5, last], np.int64)
    assert kernels._Compiled(choose)(values) == expected
    assert len(list(folder.iterdir())) == 1
    assert Dispatcher(choose)(values) == expected


def test_threads_that_compile_at_the_same_time_do_not_disturb_each_other(folder: Path) -> None:
    before = sys.getswitchinterval()
    values, begin = np.arange(10, dtype=np.int64), threading.Barrier(3)

    def call(function: Callable[..., object], *arguments: object) -> object:
        begin.wait(30)
        return kernels._Compiled(function)(*arguments)

    try:
        sys.setswitchinterval(1e-5)
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(call, choose, values), pool.submit(call, add, values, Pair(values, 1), 0)]
            waiting.append(pool.submit(call, add, values.astype(np.int32), Pair(values, 1), 0))
            assert [one.result(60) for one in waiting] == [FEW, (90, 1), (90, 1)]
    finally:
        sys.setswitchinterval(before)
    assert len(list(folder.iterdir())) == 3


def test_threads_get_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    kernels._compiled.cache_clear()

    def find(name: str) -> bool:
        time.sleep(0.05)
        return bool(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(kernels.compiled, [choose] * 4))
    assert len(set(map(id, found))) == 1
    kernels._compiled.cache_clear()


@pytest.mark.usefixtures("folder")
def test_a_numba_with_other_steps_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "heapdump.kernels.pipeline", None)
    values = np.array([5, 101], np.int64)
    assert kernels._Compiled(choose)(values) == MANY
    assert Dispatcher(choose)(values) == MANY


@pytest.mark.parametrize("changed", ["nt_damage", "nt_chain", "row", "pipeline", "compiler"])
def test_code_is_made_again_after_a_change_to_what_it_depends_on(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    before, read = code_files._texts.__wrapped__("heapdump.kernels.nt_damage"), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b" " * (path.stem == changed))
    assert code_files._texts.__wrapped__("heapdump.kernels.nt_damage") != before


def test_without_room_for_llvm_kernels_are_plain_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_files, "has_room", lambda size=0: False)
    values = np.arange(10, dtype=np.int64)
    assert kernels._Compiled(add)(values, Pair(values, 1), 0) == (90, 1)
    assert not list(folder.iterdir())


def containers(arch: HeapArch, is_debug: bool) -> BuiltDump:
    """Containers of every kind; in a debug build, where places of blocks are kept in arrays."""
    blocks = FrameworkContainers(arch, is_debug)
    blocks.add(blocks.words(5) + blocks.ring(30) + blocks.tree(40) + blocks.words(1) + blocks.hash(20))
    for make, _, _ in [] if is_debug else EVERY.values():
        make(blocks)
    return poke(ProcessBuilder(arch=arch, build=19041).heap(blocks.heap.build()).build(), *blocks.late)


def filled() -> BuiltDump:
    """A heap whose free blocks are filled."""
    heap = heap_of(Generation("x86", 2600), FIXED[0])
    heap.busy(100)
    entry = heap.free(64)
    heap.busy(100)
    built = ProcessBuilder(arch="x86", build=2600).heap(heap.build()).build()
    return poke(built, (entry + 5, b"\4"), (entry + 16, b"\xee\xfe" * 248))


def many_dumps(folder: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """The samples and others, and their places."""
    for name, make in SAMPLES.items():
        path = folder / f"{name}.dmp"
        yield path, {"block": 0} | make(path)
    more: dict[str, BuiltDump] = {
        f"{arch}-{is_debug}": containers(arch, is_debug) for arch in ARCHES for is_debug in (False, True)
    }
    more |= {"java": built_java(some_objects()), "fill": filled()}
    for name, built in more.items():
        path = folder / f"{name}.dmp"
        path.write_bytes(built.data)
        yield path, {"block": 0}


Forms = dict[str, set[str]]


def met_forms(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[Forms, list[tuple[str, str]]]:
    """The forms that commands on the built dumps call kernels with, as if all dumps were large; the usual ones."""
    found: Forms = {}
    usual: list[tuple[str, str]] = []
    place = [""]

    def compiled(function: Callable[..., object]) -> Callable[..., object]:
        name = f"{function.__module__.removeprefix('heapdump.kernels.')}.{function.__name__}"

        def recorded(*arguments: object, **named: object) -> object:
            assert not named
            form = forms.split(arguments)[0]
            found.setdefault(name, set()).add(form)
            if place[0] in USUAL and "1Cu" not in form and (name, form) not in usual:
                usual.append((name, form))
            return function(*map(kernels._plain, arguments))

        return recorded

    monkeypatch.setattr(kernels, "compiled", compiled)
    for module in (kernels, entry_check, traces, clusters_sample):
        monkeypatch.setattr(module, "WORTH_COMPILING", 0)
    for name, value in (("_LEAST_WIDE", 0), ("_WIDE_SHARE", 1 << 30)):  # else only graphs of some 65,000 nodes are wide
        monkeypatch.setattr(unreachable, name, value)
    for dump, places in many_dumps(path):
        place[0] = dump.name
        with opened_once(dump, use_index=False):
            for command, *rest in COMMANDS:
                run([command, str(dump), *(one.format(**places) for one in rest)])
        capfd.readouterr()
    return found, usual


@pytest.mark.golden
def test_forms_that_commands_use_are_compiled_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found, usual = met_forms(tmp_path, monkeypatch, capfd)
    known = ahead.known_forms()
    if "HEAPDUMP_WRITE_GOLDEN" in os.environ:
        known = {name: sorted(found[name]) for name in sorted(found)}
        LIST.write_text(json.dumps({"all": known, "usual": usual}, indent=1) + "\n")
    missing = {name: sorted(new) for name, forms_ in found.items() if (new := forms_ - set(known.get(name, [])))}
    assert not missing, "HEAPDUMP_WRITE_GOLDEN=1 pytest -m golden writes heapdump/kernels/forms.json"
    assert set(known) <= set(found), "kernels that are there no more"
    assert {tuple(one) for one in json.loads(LIST.read_text())["usual"]} == set(usual)


def test_every_kernel_that_is_run_is_compiled_ahead() -> None:
    """Names that are handed to the functions of `kernels`; `take` is for heaps that overlap, which only damage makes."""
    runners, package = ("run", "compiled", "compiled_if_worth"), Path(kernels.__file__).parent
    wanted = set()
    for path in package.parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in runners and call.args:
                wanted.add(ast.unparse(call.args[0]).rpartition(".")[2])
    defined = {
        node.name: f"{path.stem}.{node.name}"
        for path in package.glob("*.py")
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.FunctionDef) and path.name != "__init__.py"
    }
    names = {defined[name] for name in wanted & set(defined)}
    assert len(names) > 40
    assert names - set(ahead.known_forms()) == {"pointer_map.take"}
