"""Mangled names of the Itanium C++ ABI as in the source: those of classes in type information of GCC and Clang.

In: `N2ns3BoxINS_5PointELi3EEE`. Out: `ns::Box<ns::Point,3>`, written as `msvc_names.py` writes it. A substitution
(`S_`, `S0_` …) stands for a name or type met so far, in the order of the ABI. Classes in functions and lambdas are not
read. Source: the ABI's chapter on mangling; c++filt says the same.
"""

from __future__ import annotations

from collections.abc import Callable

from heapdump.process.symbols.msvc_cursor import Cursor, NoNameError

_BUILT_IN = {
    "v": "void", "w": "wchar_t", "b": "bool", "c": "char", "a": "signed char", "h": "unsigned char", "s": "short",
    "t": "unsigned short", "i": "int", "j": "unsigned int", "l": "long", "m": "unsigned long", "x": "long long",
    "y": "unsigned long long", "n": "__int128", "o": "unsigned __int128", "f": "float", "d": "double",
    "e": "long double", "g": "__float128", "z": "...", "Di": "char32_t", "Ds": "char16_t", "Du": "char8_t",
    "Dn": "std::nullptr_t",
}  # fmt: skip
_SHORT = {
    "Sa": "std::allocator", "Sb": "std::basic_string", "Ss": "std::string", "Si": "std::istream", "So": "std::ostream",
    "Sd": "std::iostream",
}  # fmt: skip
_SIGNS = {"P": "*", "R": "&", "O": "&&"}
_UNNAMED, _ALIKE = "(anonymous namespace)", "_GLOBAL__N"


def itanium_name(mangled: str) -> str:
    """`N2ns3FooE` → `ns::Foo`, `3BoxIiE` → `Box<int>`; itself where its form is not known."""
    try:
        reader = _ItaniumName(mangled)
        found = reader.type()
    except ValueError:
        return mangled
    return found if reader.is_done and mangled[:1] in (*"NS123456789",) else mangled


class _ItaniumName(Cursor):
    """Reads one mangled name.

    Raises:
        NoNameError: by every method, where the text ends too early or has another form.
    """

    def __init__(self, text: str) -> None:
        """Knows no name yet."""
        super().__init__(text)
        self._known: list[str] = []

    def type(self) -> str:
        """Any type."""
        with self.deeper():
            word = self.take(*_BUILT_IN)
            if word:
                return _BUILT_IN[word]
            sign = self.take(*_SIGNS)
            if sign:
                return self._added(_pointed(self.type(), _SIGNS[sign]))
            words = ""
            while letter := self.take("K", "V"):
                words = (" const" if letter == "K" else " volatile") + words
            if words:
                return self._added(self.type() + words)
            return self._compound()

    def _compound(self) -> str:
        """A function, an array, or a name."""
        if self.take("F"):
            result, *parameters = self._several(self.type)
            return self._added(f"{result} ({'void' if parameters in ([], ['void']) else ','.join(parameters)})")
        if self.take("A"):
            count = self._digits()
            self._expect("_")
            return self._added(f"{self.type()}[{count}]")
        if self.take("N"):
            return self._nested()
        return self._with_arguments(self._first())

    def _first(self) -> str:
        """A name without others around it: `3Foo`, `St3Foo`, `S1_`."""
        if self.take("St"):
            return self._added(f"std::{self._own()}")
        short = self.take(*_SHORT)
        if short:
            return _SHORT[short]
        return self._back() if self.take("S") else self._added(self._own())

    def _with_arguments(self, name: str) -> str:
        return self._added(name + self._arguments()) if self.take("I") else name

    def _nested(self) -> str:
        """Names around each other, up to an `E`."""
        self.take("K", "V")
        name = "std" if self.take("St") else ""
        if not name and self.peek() == "S":
            short = self.take(*_SHORT)
            name = _SHORT[short] if short else self._back_behind("S")
        while not self.take("E"):
            if self.take("I"):
                name += self._arguments()
            else:
                name = f"{name}::{self._own()}" if name else self._own()
            self._added(name)
        if not name:
            raise NoNameError
        return name

    def _arguments(self) -> str:
        inner = ",".join(self._several(self._argument))
        return f"<{inner}{' ' if inner.endswith('>') else ''}>"

    def _argument(self) -> str:
        """A template argument: a type, a number, a pack."""
        if self.take("L"):
            kind = self.type()
            sign = "-" if self.take("n") else ""
            value = f"{sign}{self._digits()}"
            self._expect("E")
            return {"0": "false", "1": "true"}.get(value, value) if kind == "bool" else value
        if self.take("J"):
            return ",".join(self._several(self._argument))
        return self.type()

    def _several(self, read: Callable[[], str]) -> list[str]:
        """What `read` reads, up to an `E`."""
        found: list[str] = []
        while not self.take("E"):
            one = read()
            found += [one] if one else []
        return found

    def _own(self) -> str:
        """`3Foo`."""
        length = self._digits()
        name = self._text[self.at : self.at + length]
        if len(name) < length or not name.isidentifier():
            raise NoNameError
        self.at += length
        tags = ""
        while self.take("B"):
            tags += f"[abi:{self._own()}]"
        return _UNNAMED if name.startswith(_ALIKE) else name + tags

    def _digits(self) -> int:
        start = self.at
        while self.peek().isdigit():
            self.at += 1
        if not 0 < self.at - start < 20:
            raise NoNameError
        return int(self._text[start : self.at])

    def _expect(self, word: str) -> None:
        if not self.take(word):
            raise NoNameError

    def _back_behind(self, word: str) -> str:
        self._expect(word)
        return self._back()

    def _back(self) -> str:
        """A substitution, behind its `S`: `_`, `0_`, `A_`."""
        end = self._text.find("_", self.at)
        digits = self._text[self.at : end] if end >= 0 else "-"
        number = int(digits, 36) + 1 if digits else 0
        if not 0 <= number < len(self._known):
            raise NoNameError
        self.at = end + 1
        return self._known[number]

    def _added(self, name: str) -> str:
        """The name, which substitutions can stand for from now on."""
        self._known.append(self.bounded(name))
        return name


def _pointed(text: str, sign: str) -> str:
    """A pointer or reference to a type: `int*` is written `int *`, as PDBs write it."""
    before, bracket, behind = text.partition(" (") if text.endswith(")") else (text, "", "")
    if bracket:
        return f"{before} ({sign})({behind}"
    return f"{text}{'' if text.endswith(('*', '&')) else ' '}{sign}"
