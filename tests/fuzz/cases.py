"""Cases: a damaged dump and a command line, both made of a seed and the number of the case alone.

Command lines come from the product's own list of commands and their options: a new command is included by itself.
"""

from __future__ import annotations

import gzip
import json
import lzma
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from heapdump.cli import cli
from tests.hostile.values import WORDS

NAMES = (*cli.list_commands(click.Context(cli)), "cache")
"""Every command that can be asked. `mcp` is asked without its streams: a session, and calls of its tools."""

TOOLS: dict[str, dict[str, type]] = {
    "triage": {}, "summary": {}, "check": {"cursor": int}, "heaps": {"cursor": int}, "gaps": {},
    "leaks": {"group_by": str, "unreachable": bool, "heap": str, "size": str, "cursor": int},
    "blocks": {"heap": str, "size": str, "containing": str, "cursor": int}, "block": {"address": str},
    "refs": {"address": str}, "retained": {"address": str}, "regions": {"usage": str, "at": str, "cursor": int},
    "threads": {"frames": bool, "thread": str, "cursor": int}, "modules": {"name": str, "cursor": int},
    "memory": {"address": str, "form": str, "count": int}, "managed": {"address": str, "types": bool}, "diff": {"group_by": str},
}  # fmt: skip
"""Tool of `mcp` → its arguments beside the dump."""

_SELDOM = 5
"""One case of this many stays with `fleet`: it starts processes."""

_ADDRESSES = (
    "0", "1", "0x20000000000", "0x20000000040", "28a65b00000", "ffffffffffffffff", "00000000`7ffe0000", "peb", "teb", "rsp",
    "rip", "poi(peb+30)", "poi(rsp)", "poi(poi(poi(rsp)))", "ntdll", "ntdll!RtlAllocateHeap", "peb+", "((((", "0x", "-1",
    "rsp-0xffffffffffffffff", "18446744073709551616", "~0", "x" * 300, "\u202e", "2*3", "poi(", "nosuch!name+5",
)  # fmt: skip
_TEXTS = (
    "", "a", "\x1b[31m", "\u202e", "size", "address", "bytes:desc", "-bytes", "_PEB", "_HEAP", "_HEAP_ENTRY", "*", "?", "[", "(",
    "0..10", "..", "10..5", "64K", "1T", "99999999999999999999", "-5", "main", "ntdll", "MEM_COMMIT", "Heap", "growth=10M", "\udcff",
)  # fmt: skip
_NUMBERS = ("0", "1", "-1", "2", "20", "4294967296", "9" * 30, "0x10", "x", "")


@dataclass(frozen=True, slots=True)
class Case:
    """`number` of the seed; `damage` in words; `arguments` of heapdump, the dump is `DUMP`."""

    number: int
    sample: str
    damage: str
    arguments: tuple[str, ...]


def command_line(chance: random.Random, folder: Path) -> list[str]:
    """A command with some of its options. `DUMP` stands for the dump, files lie in `folder`."""
    name = chance.choice(NAMES)
    if name == "fleet" and chance.randrange(_SELDOM):
        name = "mcp"
    if name == "mcp":
        return ["mcp", "DUMP", json.dumps(_calls(chance)), *chance.choice(([], ["--redact"], ["--tokens", "500"]))]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    words: list[str] = []
    options = [
        one for one in command.params if isinstance(one, click.Option) and one.name not in ("verify", "scheduler")
    ]
    for option in chance.sample(options, min(len(options), chance.choice((0, 0, 1, 1, 2, 3, 5)))):
        words += _option(chance, option, folder)
    arguments = [_argument(chance, one) for one in command.params if isinstance(one, click.Argument)]
    if name in ("fleet", "cache"):
        words += {
            "fleet": ["--jobs", "1", *chance.choice(([], [str(folder)], ["no/*.dmp"], ["nosuch://x"]))],
            "cache": [],
        }[name]
    return [
        name,
        *(["DUMP"] if name != "cache" else []),
        *(word for words_of_one in arguments for word in words_of_one),
        *words,
    ]


def _calls(chance: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """Calls of tools, in the order of an assistant that has lost its way."""
    calls = []
    for name in chance.choices(sorted(TOOLS), k=chance.choice((1, 3, 6))):
        kinds = TOOLS[name]
        chosen = [one for one in kinds if one in ("address", "form", "count") or chance.random() < 0.4]
        calls.append((name, {one: _tool_value(chance, kinds[one]) for one in chosen}))
    return calls


def _tool_value(chance: random.Random, kind: type) -> Any:
    if kind is bool:
        return chance.random() < 0.5
    return chance.choice((0, 1, -1, 7, 1 << 40)) if kind is int else chance.choice((*_ADDRESSES, *_TEXTS))


def _argument(chance: random.Random, argument: click.Parameter) -> list[str]:
    if argument.metavar == "PATH...":
        return []
    if argument.name in ("dump", "dumps"):
        return ["DUMP"] if argument.name == "dumps" and chance.random() < 0.7 else []
    return [chance.choice((*_ADDRESSES, *_TEXTS))] if chance.random() < 0.9 else []


def _option(chance: random.Random, option: click.Option, folder: Path) -> list[str]:
    flag = chance.choice(option.opts)
    if option.is_flag or option.count:
        return [flag]
    return [flag, _value(chance, option, folder)]


def _value(chance: random.Random, option: click.Option, folder: Path) -> str:
    if isinstance(option.type, click.Choice):
        return str(chance.choice(list(option.type.choices)))
    if isinstance(option.type, click.Path):
        return chance.choice((str(folder / "out"), str(folder), str(folder / "no" / "such"), "DUMP", "/dev/full", ""))
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
        return chance.choice(_NUMBERS)
    return chance.choice((*_ADDRESSES, *_TEXTS, *_NUMBERS))


def _flipped(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 3, 30, 1000))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _words(chance: random.Random, data: bytearray) -> None:
    reach = chance.choice((2048, 16384, len(data)))
    for _ in range(chance.choice((1, 4, 40, 400))):
        at, size = chance.randrange(min(reach, len(data))) // 4 * 4, chance.choice((1, 2, 4, 8))
        data[at : at + size] = (chance.choice(WORDS) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.choice((0, 4, 32, 100, chance.randrange(len(data)), len(data) - 1)) :]


def _pages(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 4, 16))):
        to, source = (chance.randrange(len(data) // 4096 + 1) * 4096 for _ in range(2))
        data[to : to + 4096] = chance.choice((data[source : source + 4096], bytes(4096), chance.randbytes(4096)))


def _copied(chance: random.Random, data: bytearray) -> None:
    """Words of the dump over other words of it: pointers into the wrong structure."""
    for _ in range(chance.choice((1, 10, 100))):
        to, source = (chance.randrange(max(1, len(data) // 8)) * 8 for _ in range(2))
        data[to : to + 8] = data[source : source + 8]


_DAMAGES: dict[str, Callable[[random.Random, bytearray], None]] = {
    "none": lambda chance, data: None, "flipped bits": _flipped, "words": _words, "cut": _cut, "pages": _pages,
    "copied words": _copied,
}  # fmt: skip


def damaged(chance: random.Random, content: bytes) -> tuple[str, bytes]:
    """(the damage in words, the dump with it, sometimes packed and damaged once more)."""
    name = chance.choice(list(_DAMAGES))
    data = bytearray(content)
    _DAMAGES[name](chance, data)
    if chance.random() > 0.06 or len(data) > 4 << 20:
        return name, bytes(data)
    kind, pack = chance.choice((("gzip", _gzip), ("xz", _xz)))
    packed = bytearray(pack(bytes(data)))
    if chance.random() < 0.7 and packed:
        chance.choice((_flipped, _cut))(chance, packed)
    return f"{name}, {kind}", bytes(packed)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


def make_case(seed: int, number: int, contents: dict[str, bytes], folder: Path) -> tuple[Case, bytes]:
    """(the case, the bytes of its dump): the same for the same seed, number and samples."""
    chance: Any = random.Random(f"{seed}/{number}")
    sample = chance.choice(sorted(contents))
    damage, data = damaged(chance, contents[sample])
    return Case(number, sample, damage, tuple(command_line(chance, folder))), data
