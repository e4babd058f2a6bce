"""Types and owners of blocks: the answers of one snapshot, each computed once and kept in the index.

Part of the wiring of `snapshot.py`, which would be too long with it.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.containers.flags import ContainerFlags
    from heapdump.analyses.types.declared_shapes import DeclaredShapes
    from heapdump.analyses.types.members import ContainerTable
    from heapdump.analyses.types.nodes import NodeTable
    from heapdump.analyses.types.typing import BlockTyping
    from heapdump.process.symbols.namer import Namer
    from heapdump.snapshot import Snapshot


class TypeAnswers:
    """Types, containers, nodes and owners of one snapshot, from the index where they are stored there."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Reads nothing yet."""
        self._snapshot = snapshot
        self.shapes = cache(self._shapes)
        self._typed = cache(self._declared)

    @cached_property
    def typing(self) -> BlockTyping:
        """The type of every busy block of the program. From the index where there is one."""
        from heapdump.analyses.types.typing import columns_of, from_columns

        return self._snapshot.graph_answer("typing", from_columns, columns_of, lambda: self._make_typing(None))

    def typed(self, namer: Namer) -> BlockTyping:
        """Likewise, with the types that the PDBs of a namer declare."""
        shapes = self.shapes(namer)
        return self.typing if shapes is None else self._typed(shapes)

    def _declared(self, shapes: DeclaredShapes) -> BlockTyping:
        """The types with what PDBs declare. From the index where the same PDBs were asked last."""
        from heapdump.analyses.types.typing import columns_of, from_columns
        from heapdump.cache.answers import Columns, StoredAnswer

        key = np.frombuffer(shapes.key.encode(), np.uint8)

        def read(columns: Columns) -> BlockTyping | None:
            """The stored types; None for those of other PDBs."""
            is_same = np.array_equal(columns.pop("key"), key)
            return from_columns(columns, len(self._snapshot.graph)) if is_same else None

        stored = StoredAnswer("typing-declared", read, lambda found: columns_of(found) | {"key": key})
        return self._snapshot.answer(stored, lambda: self._make_typing(shapes))

    def _make_typing(self, shapes: DeclaredShapes | None) -> BlockTyping:
        from heapdump.analyses.types.typing import typing_of

        one = self._snapshot
        return typing_of(one.process, one.heaps, one.walk.table, one.graph, (self.containers, self.nodes), shapes)

    def _shapes(self, namer: Namer) -> DeclaredShapes | None:
        """What the PDBs of the program's own modules declare; None without one."""
        from heapdump.analyses.types.declared_shapes import shapes_of

        return shapes_of(self._snapshot.process, namer.program)

    @cached_property
    def containers(self) -> ContainerTable:
        """The containers in blocks and in module data. From the index where there is one."""
        from heapdump.analyses.containers.buffers import find_buffers
        from heapdump.analyses.types.members import columns_of, from_columns

        one = self._snapshot

        def find() -> ContainerTable:
            """The containers, found now."""
            return find_buffers(one.process, one.graph, self._marks)

        return one.graph_answer("containers", from_columns, columns_of, find)

    @cached_property
    def _marks(self) -> ContainerFlags:
        """The nodes in which containers may be found."""
        from heapdump.analyses.containers.flags import container_flags

        return container_flags(self._snapshot.process.space.mapped, self._snapshot.graph)

    @cached_property
    def nodes(self) -> NodeTable:
        """The lists, maps and hash tables, and their nodes. From the index where there is one."""
        from heapdump.analyses.types.nodes import columns_of, find_nodes, from_columns

        one = self._snapshot

        def find() -> NodeTable:
            """The containers, found now."""

            def block_address(nodes: NDArray[np.int64]) -> NDArray[np.uint64]:
                """Where the blocks of nodes begin."""
                return one.walk.table.addresses(one.graph.rows[nodes])

            return find_nodes(one.process, one.graph, self.containers, self._marks, block_address)

        return one.graph_answer("nodes", from_columns, columns_of, find)

    def owners(self, namer: Namer) -> BlockTyping:
        """The owner of every busy block. From the index where the same files gave them names."""
        from heapdump.analyses.graph.owners import OwnerFinder
        from heapdump.analyses.types.typing import columns_of, from_columns
        from heapdump.cache.answers import Columns, StoredAnswer

        one, modules = self._snapshot, set[int]()

        def find() -> BlockTyping:
            """The owners, found now."""
            finder = OwnerFinder(one.process, one.graph, one.retained, namer)
            found = finder.owners(self.typed(namer))
            modules.update(finder.named_modules)
            return found

        def read(columns: Columns) -> BlockTyping | None:
            """The stored owners; None where other PDBs or images were read for them."""
            key = columns.pop("key").tobytes().decode()
            is_same = key == self._names_key(namer, [int(base) for base in key.partition("\n")[0].split()])
            return from_columns(columns, len(one.graph)) if is_same else None

        def write(found: BlockTyping) -> Columns:
            """The columns of owners, with what their names were read from."""
            key = self._names_key(namer, sorted(modules)).encode()
            return columns_of(found) | {"key": np.frombuffer(key, np.uint8)}

        if namer is one.namer():
            return one.graph_answer("owners", from_columns, columns_of, find)
        return one.answer(StoredAnswer("owners-declared", read, write), find)

    def _names_key(self, namer: Namer, bases: list[int]) -> str:
        """What a namer names places in modules by: images, and all PDBs. `bases`: of the modules, the first line."""
        shapes, process = self.shapes(namer), self._snapshot.process
        images = [namer.image(module) for base in bases if (module := process.module_map.at(base)) is not None]
        lines = [" ".join(map(str, bases)), *(image.source if image else "" for image in images)]
        return "\n".join([*lines, "" if shapes is None else shapes.key])
