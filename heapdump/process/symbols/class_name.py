"""The name of a C++, Delphi or Pascal class."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.process.model import Module


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class by its run-time type information.

    Attributes:
        name: as in the source (`ns::Foo`); the decorated name where its form is not known.
        decorated: the name as the compiler stored it.
        kind: `class`, `struct`, `union` or `enum`.
        module: the module that holds the type information.
    """

    name: str
    decorated: str
    kind: str
    module: Module
