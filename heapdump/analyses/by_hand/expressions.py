"""Address expressions, as WinDbg takes them: `module!export+0x10`, `ebp+0xc`, `poi(teb+0x30)`.

    expression = term {("+" | "-") term}
    term       = number | register | "ip" | "csp" | "peb" | "teb" | module ["!" symbol]
               | "poi(" expression ")" | "(" expression ")"

`ip` and `csp` are the instruction and the stack pointer of any architecture; `$` and `@` may stand before a register.
Numbers are hex, `0n` begins a decimal one. A word that is a number is one, even where a module has that name.
"""

from __future__ import annotations

import re
from functools import cached_property

from heapdump.analyses.by_hand.place import FramePlace
from heapdump.errors import WrongUsage
from heapdump.process.model import Module

_LONGEST, _DEEPEST = 1000, 32
"""Characters of an expression, and brackets inside each other."""

_NUMBER = re.compile(r"(?:0n\d{1,20}|(?:0x)?[0-9a-f][0-9a-f`]{0,20})(?=$|[\s+\-()])", re.IGNORECASE)
_WORD = re.compile(r"[@$]*([a-z]\w*)", re.IGNORECASE)
_SYMBOL = re.compile(r"[^\s+\-()]+")
_BEHIND = re.compile(r"$|[\s+\-()!]")
_REGISTER = re.compile(r"[er]?(ax|bx|cx|dx|si|di|bp|sp|ip)|r([89]|1[0-5])d?|eflags|cs", re.IGNORECASE)
_PSEUDO = {"ip": ("rip", "eip"), "csp": ("rsp", "esp"), "sp": ("rsp", "esp")}
"""WinDbg's pseudo-registers, which are of the width that the thread has."""

_TOP = 1 << 64


class Expressions:
    """Evaluates expressions about one process, with the registers of one place."""

    def __init__(self, place: FramePlace) -> None:
        """Reads nothing yet."""
        self.place = place

    def value(self, text: str) -> int:
        """The address that an expression gives.

        Raises:
            WrongUsage: it is none, it names what the dump does not have, or the result is no address.
        """
        if len(text) > _LONGEST:
            raise WrongUsage(f"an address of {len(text):,} characters; the longest expression has {_LONGEST:,}")
        value = _ExpressionParser(self, text).parse()
        if not 0 <= value < _TOP:
            raise WrongUsage(f"{text!r} is not an address: it is {'below zero' if value < 0 else 'above 2^64'}")
        return value

    @cached_property
    def modules(self) -> list[tuple[str, Module]]:
        """(spelling in lower case, module), the longest first: `app.exe`, `app`, and WinDbg's `my_app` for `my-app`."""
        found: dict[str, Module] = {}
        for module in self.place.process.modules:
            name = module.name.lower()
            stem = name.rpartition(".")[0] or name
            for spelling in (name, stem, re.sub(r"\W", "_", stem)):
                found.setdefault(spelling, module)
        return sorted(found.items(), key=lambda pair: -len(pair[0]))

    def pointer(self, address: int) -> int:
        """The pointer at an address.

        Raises:
            WrongUsage: it is not in the dump.
        """
        found = self.place.view.space.try_pointer(address) if 0 <= address < _TOP else None
        if found is None:
            raise WrongUsage(f"poi({address:#x}): the dump has no memory there")
        return found

    def word(self, word: str) -> int | None:
        """The value of `peb`, `teb` or a register; None for another word.

        Raises:
            WrongUsage: the dump does not have it.
        """
        name, place = word.lower(), self.place
        if name == "peb":
            if place.view.peb is None:
                raise WrongUsage("no TEB is in the dump, so the address of the PEB is not known")
            return place.view.peb
        if name == "teb":
            if place.teb is None:
                raise WrongUsage(f"the TEB of {place.words} is not known")
            return place.teb.address
        if name in _PSEUDO:
            name = next((one for one in _PSEUDO[name] if one in place.registers), name)
        if not _REGISTER.fullmatch(name):
            return None
        found = place.register(name)
        if found is None:
            known = ", ".join(place.registers)
            raise WrongUsage(f"{name} is not known in {place.words}; known there: {known or 'no register'}")
        return found

    def symbol(self, module: Module, name: str) -> int:
        """The address of an export, or of a function of the module's PDB.

        Raises:
            WrongUsage: there is none of that name.
        """
        namer = self.place.namer
        found = namer.address_of(module, name)
        if found is None:
            image = namer.image(module)
            if image is None or not image.exports.names:
                raise WrongUsage(
                    f"{module.name} has no symbol that is known: its export table is not in the dump; "
                    "name the folder of its file with --image-path, or of its PDB with --symbols"
                )
            raise WrongUsage(f"{module.name} has no symbol {name!r} that is known; --symbols names folders of PDBs")
        return found


class _ExpressionParser:
    """Reads one expression from left to right."""

    def __init__(self, expressions: Expressions, text: str) -> None:
        self._of, self._text, self._at, self._depth = expressions, text, 0, 0

    def parse(self) -> int:
        """The value of the whole text."""
        value = self._sum()
        if self._at < len(self._text):
            raise self._wrong()
        return value

    def _wrong(self) -> WrongUsage:
        rest = self._text[self._at :].strip() or self._text
        shown = rest if len(rest) <= 40 else f"{rest[:40]}…"
        what = repr(self._text) if len(self._text) <= 40 else f"{self._text[:40]!r}…"
        return WrongUsage(
            f"{what} is not an address: {shown!r} is no number, register or module; "
            "write 0x29fb0000, 00000000`29fb0000, ntdll+0x10, rsp+8, poi(peb+0x30)"
        )

    def _skip(self, characters: str = "") -> str:
        """Skips blanks, then one of the characters; the one that was there, or ""."""
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        found = self._text[self._at : self._at + 1]
        if found and found in characters:
            self._at += 1
            return found
        return ""

    def _sum(self) -> int:
        value = -self._term() if self._skip("+-") == "-" else self._term()
        while sign := self._skip("+-"):
            value += self._term() if sign == "+" else -self._term()
        self._skip()
        return value

    def _term(self) -> int:
        self._skip()
        rest = self._text[self._at :]
        if rest[:4].lower() == "poi(" or rest[:1] == "(":
            return self._bracket(is_pointer=rest[:1] != "(")
        if number := _NUMBER.match(rest):
            self._at += number.end()
            digits = number[0].lower().replace("`", "")
            return int(digits[2:]) if digits.startswith("0n") else int(digits, 16)
        word = _WORD.match(rest)
        if word and _BEHIND.match(rest, word.end()) and rest[word.end() : word.end() + 1] != "!":
            value = self._of.word(word[1])
            if value is not None:
                self._at += word.end()
                return value
        return self._in_module(rest)

    def _bracket(self, *, is_pointer: bool) -> int:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise WrongUsage(f"an expression with more than {_DEEPEST} brackets inside each other")
        self._at = self._text.index("(", self._at) + 1
        value = self._sum()
        if not self._skip(")"):
            raise self._wrong()
        self._depth -= 1
        return self._of.pointer(value) if is_pointer else value

    def _in_module(self, rest: str) -> int:
        lower = rest.lower()
        for spelling, module in self._of.modules:
            if lower.startswith(spelling) and _BEHIND.match(rest, len(spelling)):
                self._at += len(spelling)
                if not self._skip("!"):
                    return module.span.start
                name = _SYMBOL.match(self._text, self._at)
                if name is None:
                    raise self._wrong()
                self._at = name.end()
                return self._of.symbol(module, name[0])
        raise self._wrong()
