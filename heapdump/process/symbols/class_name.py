"""The name of a C++, Delphi or Pascal class."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.process.model import Module


@dataclass(frozen=True, slots=True)
class ClassName:
    """`name` as in the source (`ns::Foo`), decorated where its form is not known; `kind`: class, struct …."""

    name: str
    decorated: str
    kind: str
    module: Module
