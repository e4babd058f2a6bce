"""The namers and stores of one process, one for each path that a caller names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from heapdump.process.model import Process
from heapdump.process.symbols.foreign_code import ForeignCode
from heapdump.process.symbols.namer import Namer
from heapdump.process.symbols.store import SymbolStores

SearchPath = str | Path | None
"""A symbol path; a Path is one folder, whatever its name; None is no path."""


class Namers:
    """Makes each namer and each store once: what a server does not have is asked for once."""

    def __init__(
        self, process: Process, code: ForeignCode, remarks: list[str], default: Path, say: Callable[[str], None]
    ) -> None:
        """`code`: of the runtimes. `remarks`, `default`, `say`: as of `SymbolStores`."""
        self._process, self._code, self._remarks, self._default, self._say = process, code, remarks, default, say
        self._namers: dict[tuple[SearchPath, SearchPath], Namer] = {}
        self._stores: dict[SearchPath, SymbolStores] = {}

    def stores(self, path: SearchPath) -> SymbolStores:
        """The stores that a path names."""
        if path not in self._stores:
            self._stores[path] = (
                SymbolStores.of_folder(path)
                if isinstance(path, Path)
                else SymbolStores(path or "", self._remarks, self._default, self._say)
            )
        return self._stores[path]

    def namer(self, image_path: SearchPath, symbol_path: SearchPath) -> Namer:
        """The namer with images and PDBs of these paths."""
        key = (image_path or None, symbol_path or None)  # no path is no path, however it is said
        if key not in self._namers:
            images, stores = self.stores(image_path), self.stores(symbol_path)
            self._namers[key] = Namer(self._process, images, stores, self._remarks, code=self._code)
        return self._namers[key]
