"""The public interface of the library: ten names, each documented, loaded when used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import heapdump

ROOT = Path(__file__).parent.parent
NAMES = [
    "open_dump", "Snapshot", "Process", "Heap", "Block", "BlockTable", "Finding", "Trust", "HeapdumpError", "__version__",
]  # fmt: skip


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(heapdump.__all__) == sorted(NAMES)
    assert dir(heapdump) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(heapdump, name)
    if name == "__version__":
        assert isinstance(value, str)
    else:
        assert value.__module__.startswith("heapdump.")
        assert inspect.getdoc(value)


@pytest.mark.parametrize("name", [name for name in NAMES if name[0].isupper()])
def test_each_public_attribute_is_documented(name: str) -> None:
    for attribute, value in vars(getattr(heapdump, name)).items():
        described = value.func if hasattr(value, "func") else value
        if not attribute.startswith("_") and (inspect.isroutine(described) or isinstance(described, property)):
            assert described.__doc__, f"{name}.{attribute}"


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        heapdump.nothing  # noqa: B018


def test_a_star_import_gives_the_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from heapdump import *", namespace)
    assert set(NAMES) <= set(namespace)


def test_importing_heapdump_loads_neither_numpy_nor_rich() -> None:
    code = "import sys, heapdump; heapdump.open_dump; print({'numpy', 'rich', 'numba', 'minidump'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n", done.stderr
