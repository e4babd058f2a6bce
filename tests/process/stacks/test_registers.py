"""Registers of a raw CONTEXT: vector registers only where the context says it has them."""

from __future__ import annotations

import struct

import pytest

from heapdump.process.stacks.registers import read_context
from tests.builders.cpu_context import cpu_context


@pytest.mark.parametrize(
    ("arch", "at", "flags_at", "bit", "word"), [("x64", 0x1A0, 0x30, 0x8, "<Q"), ("x86", 0x16C, 0, 0x20, "<I")]
)
def test_vector_registers_are_words_in_their_order(arch, at, flags_at, bit, word):
    context = bytearray(cpu_context(arch, 0x1000, 0x2000))
    size = struct.calcsize(word)
    for i in range(32):
        struct.pack_into(word, context, at + size * i, 100 + i)
    flags = int.from_bytes(context[flags_at : flags_at + 4], "little")
    for wanted in (flags | bit, flags & ~bit):
        struct.pack_into("<I", context, flags_at, wanted)
        registers = read_context(bytes(context))
        assert registers is not None and registers.sp == 0x2000
        assert registers.vectors == (tuple(range(100, 132)) if wanted & bit else ())
