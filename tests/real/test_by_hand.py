"""Memory, structures, code and modules of recorded dumps: partial ones at 80 columns, and hooks that are known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heapdump.cli import run
from tests.recordings import Recorded, dumps

pytestmark = pytest.mark.real
Capture = pytest.CaptureFixture[str]
CALLS = (
    "memory {sp} --as pointers", "memory {sp}", "memory peb --as links", "struct _TEB teb", "struct _PEB peb", "disasm {ip}",
    "disasm {ip} --frame 1 --before 4", "search ntdll --limit 3", "modules", "modules ntdll", "modules --imports memory",
)  # fmt: skip


@pytest.mark.parametrize("name", dumps("real/partial/*"))
def test_partial_dumps_are_answered_at_80_columns(
    name: str, recorded: Recorded, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = str(recorded(f"{name}.dmp.xz"))
    monkeypatch.setenv("COLUMNS", "80")
    run(["info", dump, "--json", "-q"])
    is_x86 = json.loads(capfd.readouterr().out)["dump"]["arch"] == "x86"
    names = {"sp": "esp" if is_x86 else "rsp", "ip": "eip" if is_x86 else "rip"}
    for call in CALLS:
        command, *rest = call.format(**names).split()
        code = run([command, dump, *rest])
        out, err = capfd.readouterr()
        assert code in (0, 4) or (
            code == 2 and ("is not known" in err or "no module" in err or "has no frame" in err)
        ), call
        assert all(len(line) <= 80 for line in out.splitlines()), call


def hooks(dump: str, capfd: Capture) -> list[tuple[str, str, str]]:
    """(module, function, target) of every hook."""
    assert run(["modules", dump, "--imports", "--json", "-q"]) in (0, 4)
    modules: list[dict[str, Any]] = json.loads(capfd.readouterr().out)["data"]
    return [(one["name"], hook["function"], hook["target_name"]) for one in modules for hook in one["hooks"]]


def test_hooks_of_address_sanitizer(recorded: Recorded, capfd: Capture) -> None:
    found = hooks(str(recorded("asan/asan-llvm21-x64.dmp.xz")), capfd)
    library = "clang_rt.asan_dynamic-x86_64.dll!__asan_wrap_"
    assert {(module, function.partition("!")[2]) for module, function, _ in found} == {
        ("ucrtbase.dll", name) for name in ("HeapAlloc", "HeapFree", "HeapReAlloc", "HeapSize")
    }
    assert all(target.startswith(library) for _, _, target in found)


def test_hooks_of_page_heap(recorded: Recorded, capfd: Capture) -> None:
    found = hooks(str(recorded("reports/08a-stop-13-guard-page.dmp.xz")), capfd)
    assert {module for module, _, _ in found} == {"target.exe"}
    assert all(target.startswith("verifier.dll+") for _, _, target in found) and len(found) == 5


@pytest.mark.parametrize(
    "name", ["managed/t10", "managed/java25", "oracle/17763.475/basic", "oracle/19041.804-x86/basic"]
)
def test_processes_without_hooks(name: str, recorded: Recorded, capfd: Capture) -> None:
    assert hooks(str(recorded(f"{name}.dmp.xz")), capfd) == []
