"""Decorated names of Visual C++ as in the source: those of classes in run-time type information, templates included.

In: `?$vector@HV?$allocator@H@std@@@std@@`. Out: `std::vector<int,std::allocator<int> >`, written as PDBs write it, so
that `struct` takes it. Names in a function (`<lambda_1>@?0??f@@YAXXZ@`) need whole declarations, which are read, too.

Back references: a digit stands for one of the first ten names, or of the first ten types of parameters, met so far; a
template counts anew inside of its own name. Source: the compiler as llvm-undname and undname.exe restate it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from heapdump.process.symbols.msvc_cursor import Cursor, NoNameError
from heapdump.process.symbols.msvc_declared import CALLS, POINTERS, PRIMITIVES, QUALIFIERS, Declared
from heapdump.process.symbols.msvc_operators import OPERATORS

_MOST_BACK, _MOST_BOUNDS = 10, 64
_UNNAMED = "`anonymous namespace'"
_ACCESS = ("private: ", "protected: ", "public: ")
_MEMBER, _STATIC, _VIRTUAL, _THUNK = range(4)
_CLASSES = ("V", "U", "T", "W4")
_EMPTY = ("$S", "$$V", "$$$V", "$$Z")
"""Template arguments that stand for none."""


def undecorated(name: str) -> str:
    """`Foo@ns@` → `ns::Foo`, `?$box@H@ns@` → `ns::box<int>`; itself where its form is not known."""
    try:
        reader = _MsvcName(name + "@")
        found = reader.type_name()
    except NoNameError:
        return name
    return found if reader.is_done else name


class _MsvcName(Cursor):
    """Reads one decorated name from left to right.

    Raises:
        NoNameError: by every method, where the text ends too early or has another form.
    """

    def __init__(self, text: str) -> None:
        """Knows no name yet."""
        super().__init__(text)
        self._names: list[str] = []
        self._parameters: list[Declared] = []

    def type_name(self) -> str:
        """The qualified name of a class: its own name, then those around it, up to an `@`."""
        with self.deeper():
            return self._qualified(self._scope())

    def _qualified(self, own: str) -> str:
        """`own` behind the names around it."""
        names = [own]
        while not self.take("@"):
            names.append(self._scope())
        return self.bounded("::".join(reversed(names)))

    def _remembered(self, name: str) -> str:
        if name not in self._names and len(self._names) < _MOST_BACK:
            self._names.append(name)
        return name

    def _scope(self) -> str:
        """One of the names of a qualified name."""
        if self.peek().isdigit():
            return self._back(self._names)
        if self.take("?$"):
            return self._remembered(self._template(self._simple))
        if self.take("?A"):
            self.plain()
            if len(self._names) < _MOST_BACK:
                self._names.append(_UNNAMED)
            return _UNNAMED
        if self.take("?"):
            return self._local()
        return self._simple()

    def _back(self, known: list[str]) -> str:
        number = int(self.letter())
        if number >= len(known):
            raise NoNameError
        return known[number]

    def _simple(self) -> str:
        name = self.plain()
        if not name or name.startswith("?"):
            raise NoNameError
        return self._remembered(name)

    def _local(self) -> str:
        """A function around a class: its number of the scope, then its declaration."""
        number = 0 if self.take("@") else self.number()
        if not self.take("?"):
            raise NoNameError
        with self.deeper():
            return f"`{self._symbol()}'::`{number}'"

    def _template(self, name: Callable[[], str]) -> str:
        """A template with its arguments; `name` reads what stands before them."""
        outer = self._names, self._parameters
        self._names, self._parameters = [], []
        with self.deeper():
            own = name()
            arguments = []
            while not self.take("@"):
                if not self.take(*_EMPTY):
                    arguments.append(self._argument())
        self._names, self._parameters = outer
        inner = ",".join(arguments)
        return self.bounded(f"{own}<{inner}{' ' if inner.endswith('>') else ''}>")

    def _argument(self) -> str:
        """A template argument: a type, a number, the address of something."""
        if self.take("$M"):  # the type of an argument of type `auto`
            self._type()
            return self._argument()
        if self.take("$0"):
            return str(self.number())
        if self.take("$$Y"):
            return self.type_name()
        if self.take("$$C"):
            return self._qualified_type().text
        if self.take("$1", "$E"):
            is_address = self._text[self.at - 1] == "1"
            with self.deeper():
                return f"{'&' if is_address else ''}{self._symbol()}"
        self.take("$$B")
        return self._type().text

    def _qualified_type(self) -> Declared:
        """A type behind the letter of its qualifiers."""
        letter = ord(self.letter()) - ord("A")
        if not 0 <= letter < len(QUALIFIERS):
            raise NoNameError
        return self._type().qualified(QUALIFIERS[letter])

    def _type(self) -> Declared:
        """Any type."""
        with self.deeper():
            if self.take("$$A6"):
                return self._function("")
            if self.take("$$A8@@"):
                return self._function(self._this())
            if self.take(*_CLASSES):
                return Declared(self.type_name())
            pointer = self.take(*POINTERS)
            if pointer:
                return self._pointer(*POINTERS[pointer])
            if self.take("Y"):
                return self._array()
            if self.take("?"):
                return self._qualified_type()
            word = self.take(*PRIMITIVES)
            if not word:
                raise NoNameError
            return Declared(PRIMITIVES[word])

    def _array(self) -> Declared:
        count = self.number()
        if not 0 < count < _MOST_BOUNDS:
            raise NoNameError
        sizes = "".join(f"[{self.number()}]" for _ in range(count))
        element = self._qualified_type() if self.take("$$C") else self._type()
        return replace(element, behind=sizes + element.behind, is_array=True)

    def _pointer(self, sign: str, own: str) -> Declared:
        if self.take("6"):
            return self._function("").pointed(sign).qualified(own)
        if self.take("8"):
            owner = self.type_name()
            return self._function(self._this()).pointed(f"{owner}::{sign}").qualified(own)
        while self.take("E", "I", "F"):
            pass
        letter = self.take("Q", "R", "S", "T")
        if letter:
            owner, words = self.type_name(), QUALIFIERS["QRST".index(letter)]
            return self._type().qualified(words).pointed(f"{owner}::{sign}").qualified(own)
        return self._qualified_type().pointed(sign).qualified(own)

    def _this(self) -> str:
        """What a member function says of `this`, to be written behind its parameters."""
        words = ""
        while letter := self.take("E", "I", "F", "G", "H"):
            words = {"G": "&", "H": "&&"}.get(letter, words)
        place = ord(self.letter()) - ord("A")
        if not 0 <= place < len(QUALIFIERS):
            raise NoNameError
        return "".join(f" {word}" for word in (QUALIFIERS[place], words) if word)

    def _function(self, this: str) -> Declared:
        """The type of a function: calling convention, result, parameters."""
        call = CALLS.get(self.letter())
        if call is None:
            raise NoNameError
        result = Declared("") if self.take("@") else self._result()
        behind = f"({self._parameter_list()}){this}"
        if not self.take("Z"):
            if not self.take("_E"):
                raise NoNameError
            behind += " noexcept"
        return Declared(result.before, behind + result.behind, call)

    def _result(self) -> Declared:
        return self._qualified_type() if self.take("?") else self._type()

    def _parameter_list(self) -> str:
        if self.take("X"):
            return "void"
        found: list[str] = []
        while not self.take("@"):
            if self.take("Z"):
                return ",".join([*found, "..."])
            if self.peek().isdigit():
                number = int(self.letter())
                if number >= len(self._parameters):
                    raise NoNameError
                found.append(self._parameters[number].text)
                continue
            start = self.at
            one = self._type()
            if self.at - start > 1 and len(self._parameters) < _MOST_BACK:
                self._parameters.append(one)
            found.append(self.bounded(one.text))
        return ",".join(found)

    def _symbol(self) -> str:
        """The declaration of a function or a variable."""
        if not self.take("?"):
            raise NoNameError
        own = self._symbol_name()
        name = self._qualified(own)
        if own in ("", "~"):  # constructor, destructor: named after their class
            name = name.removesuffix("::" + own) + "::" + own + name.removesuffix("::" + own).rpartition("::")[2]
        if self.peek() and self.peek() in "01234":
            return self._variable(name)
        return self._declared(name)

    def _symbol_name(self) -> str:
        if self.peek().isdigit():
            return self._back(self._names)
        if self.take("?$"):
            return self._template(lambda: self._operator() if self.take("?") else self._simple())
        return self._operator() if self.take("?") else self._simple()

    def _operator(self) -> str:
        found = self.take(*OPERATORS)
        if not found:
            raise NoNameError
        return OPERATORS[found]

    def _variable(self, name: str) -> str:
        place = (*(f"{access}static " for access in _ACCESS), "", "")[int(self.letter())]
        declared = self._type()
        while self.take("E", "I", "F"):
            pass
        letter = ord(self.letter()) - ord("A")
        if not 0 <= letter < len(QUALIFIERS):
            raise NoNameError
        is_pointer = declared.before.endswith("*")
        return place + declared.qualified("" if is_pointer else QUALIFIERS[letter]).around(name)

    def _declared(self, name: str) -> str:
        """The declaration of a function, from the letter of its access on."""
        self.take("$$J0")
        letter = ord(self.letter()) - ord("A")
        if not 0 <= letter < 26:
            raise NoNameError
        if letter >= 24:  # Y, Z: no member
            return self._function("").around(name)
        kind = letter % 8 // 2
        if kind == _THUNK:
            self.number()
        function = self._function("" if kind == _STATIC else self._this())
        word = {_STATIC: "static ", _VIRTUAL: "virtual ", _THUNK: "virtual "}.get(kind, "")
        return _ACCESS[letter // 8] + word + function.around(name)
