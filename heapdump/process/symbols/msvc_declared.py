"""Types in decorated names of Visual C++: the letters of the built-in ones, and a type around the name it declares."""

from __future__ import annotations

from dataclasses import dataclass, replace

PRIMITIVES = {
    "X": "void", "D": "char", "C": "signed char", "E": "unsigned char", "F": "short", "G": "unsigned short",
    "H": "int", "I": "unsigned int", "J": "long", "K": "unsigned long", "M": "float", "N": "double",
    "O": "long double", "_N": "bool", "_J": "__int64", "_K": "unsigned __int64", "_W": "wchar_t", "_Q": "char8_t",
    "_S": "char16_t", "_U": "char32_t", "_D": "__int8", "_E": "unsigned __int8", "_F": "__int16",
    "_G": "unsigned __int16", "_H": "__int32", "_I": "unsigned __int32", "_L": "__int128", "_M": "unsigned __int128",
    "$$T": "std::nullptr_t", "_T": "long double",
}  # fmt: skip
POINTERS = {"A": ("&", ""), "B": ("&", "volatile"), "P": ("*", ""), "Q": ("*", "const"), "R": ("*", "volatile"),
             "S": ("*", "const volatile"), "$$Q": ("&&", ""), "$$R": ("&&", "volatile")}  # fmt: skip
"""Letter of a pointer or reference → its sign and its own qualifiers."""

QUALIFIERS = ("", "const", "volatile", "const volatile")
CALLS = {
    "A": "__cdecl", "C": "__pascal", "E": "__thiscall", "G": "__stdcall", "I": "__fastcall", "M": "__clrcall",
    "O": "__eabi", "Q": "__vectorcall",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Declared:
    """A type around the name that it declares: `int (__cdecl *` name `)(int)`. `call`: that of a function."""

    before: str
    behind: str = ""
    call: str = ""
    is_array: bool = False

    @property
    def text(self) -> str:
        """The type alone."""
        return f"{self.before} {self.call}{self.behind}" if self.call else self.before + self.behind

    def around(self, name: str) -> str:
        """The declaration of a name."""
        gap = "" if self.before.endswith(("*", "&")) or not self.before else " "
        return f"{self.before}{gap}{f'{self.call} ' if self.call else ''}{name}{self.behind}"

    def qualified(self, words: str) -> Declared:
        """The type with `const`, `volatile`; arrays and functions have none of their own."""
        if not words or self.call:
            return self
        gap = "" if self.before.endswith(("*", "&")) else " "
        return replace(self, before=f"{self.before}{gap}{words}")

    def pointed(self, sign: str) -> Declared:
        """A pointer (`*`), a reference, or a pointer to a member (`Foo::*`) to the type."""
        if self.call or self.is_array:
            call = f"{self.call} " if self.call else ""
            return Declared(f"{self.before} ({call}{sign}", f"){self.behind}")
        gap = "" if self.before.endswith(("*", "&")) and not sign[0].isalpha() else " "
        return Declared(f"{self.before}{gap}{sign}", self.behind)
