"""`--redact` on every command and format: planted secrets, in all the ways memory is shown, are not printed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import click
import pytest

from heapdump.cli import cli, run
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.every_command import plain_calls
from tests.patching import poke

SECRET, USER, MACHINE = "hunter2-secret", "quincy", "ORACLE-77"
WIDE = SECRET.encode("utf-16-le")
EXE = f"C:\\Users\\{USER}\\app\\pay.exe"
TRACES = (
    SECRET,
    USER,
    MACHINE,
    SECRET.encode().hex(),
    SECRET.encode().hex(" "),
    WIDE.hex(),
    WIDE.hex(" "),
    "68756e746572",
)
"""Everything that would give the secret away: as text, and as hex digits."""
BASE, STACK = 0x20000000000, 0x3481A00000


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A process with secrets in blocks, on the stack, in unknown memory, in a damaged header, in its command line."""
    heap = NtHeapBuilder(base=BASE)
    narrow = heap.busy(100, SECRET.encode() * 3)
    wide = heap.busy(200, WIDE * 4)
    for _ in range(20):
        heap.busy(64, SECRET.encode())
    overrun = heap.busy(24, b"x" * 24)
    heap.busy(40, SECRET.encode())
    line = f'"{EXE}" --password {SECRET}'
    process = ProcessBuilder(exe=EXE, command_line=line).heap(heap.build())
    process.region(0x28A60000000, 0x1000).memory(0x28A60000000, (SECRET.encode() * 9).ljust(0x1000, b"\0"))
    content = struct.pack("<QQ", narrow, wide) + SECRET.encode() * 4
    process.thread(
        0x1B3C, stack=(STACK, STACK + 0x4000), sp=STACK + 0x3000, ip=0x7FF6F1781010, content=content, name="x"
    )
    (number,) = struct.unpack_from("<Q", SECRET.encode())
    process.dump.exception(
        0x1B3C, 0xC0000005, 0x7FF6F1781010, (0, number), ip=0x7FF6F1781010, sp=STACK + 0x3000, registers={"rax": narrow}
    )
    built = poke(process.build(), (overrun + 24, SECRET.encode()[:8]))
    path = tmp_path_factory.mktemp("planted") / "crash.dmp"
    path.write_bytes(built.data)
    return path, {
        "narrow": hex(narrow),
        "wide": hex(wide),
        "overrun": hex(overrun),
        "heap": hex(BASE),
        "stack": hex(STACK + 0x3000),
    }


CALLS = {
    "block": ["{narrow}", "{wide}", "{overrun}", "{stack}"], "blocks": ["--stat", ""], "check": [""], "diff": ["{path}"],
    "disasm": ["0x7ff6f1781010"], "fleet": ["--jobs 1"], "gaps": [""], "heap": ["{heap}"], "heaps": ["", "--explain"],
    "info": [""], "leaks": ["", "--group-by structure", "--group-by owner", "--group-by type", "--group-by content", "--unreachable --report-objects"],
    "managed": ["", "{narrow}"],
    "memory": [f"{{narrow}} --as {kind} --count 16" for kind in ("bytes", "words", "dwords", "qwords", "pointers", "text", "utf16", "links")] + ["{wide} --as utf16", "rsp"],
    "modules": ["", "pay", "--verbose", "pay --strings"], "page-heap": [""], "refs": ["{narrow}"],
    "regions": ["", "--usage unknown"], "retained": ["", "{narrow}"], "report": [""],
    "search": [f"{SECRET[:4]} --limit 5", "hex:68756e --limit 2"],
    "struct": ["_HEAP {heap}", "_PEB peb", "_RTL_USER_PROCESS_PARAMETERS poi(peb+20)"], "summary": [""],
    "threads": ["", "--frames --args --registers"], "triage": [""], "virt-blocks": [""], "waste": [""],
}  # fmt: skip
COMMANDS = cli.list_commands(click.Context(cli))


def test_commands_without_a_call_of_their_own_need_no_argument(planted):
    for name in plain_calls(CALLS, "mcp", "cache", "help"):
        assert run([name, str(planted[0])]) != 2, name


def printed(*arguments: str) -> str:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = run(list(arguments))
    assert code in (0, 1, 2, 4), err.getvalue()
    return out.getvalue() + err.getvalue()


def calls(name: str, places: dict[str, str], path: Path) -> Iterator[list[str]]:
    for line in CALLS.get(name, [""]):
        yield [name, str(path), *line.format(path=path, **places).split()]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("mcp", "cache", "help")])
def test_no_secret_is_printed(planted, name):
    path, places = planted
    for call in calls(name, places, path):
        for form in ("table", "json", "jsonl", "csv"):
            text = printed(*call, "--redact", "--format", form)
            asked = call[-1] if name == "search" else ""
            found = [trace for trace in TRACES if trace.lower() in text.lower() and trace.lower() not in asked]
            assert not found, f"{' '.join(call)} --format {form}: {found}\n{text[:3000]}"


def test_without_redact_the_secret_is_there(planted):
    path, places = planted
    assert SECRET in printed("summary", str(path)) and USER in printed("modules", str(path), "--verbose")
    assert SECRET.encode().hex() in printed("block", str(path), places["narrow"], "--json").replace(" ", "")


def test_addresses_sizes_and_modules_stay(planted):
    path, places = planted
    text = printed("block", str(path), places["narrow"], "--redact")
    assert places["narrow"] in text and "100 bytes" in text
    assert "pay.exe" in printed("modules", str(path), "--redact")
    assert "[redacted]" in printed("summary", str(path), "--redact")
