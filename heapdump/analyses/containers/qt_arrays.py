"""Arrays of Qt: a header and the elements in one block.

    Qt 5   { references; size, 4 bytes each; capacity, 31 bits; offset of the elements, that of the header's end }
    Qt 5   QList { references; capacity; begin; end, 4 bytes each; pointers }
    Qt 6   { references; flags, 4 bytes each; capacity }; the owner has { header; first element; elements }

Source: `qarraydata.h`, `qlist.h`, `qarraydatapointer.h`. Witnesses: capacity and header fill the block; of Qt 6 the
owner has two pointers to it; a QString and a QByteArray end in a zero, a QList has pointers to blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.candidates import Candidates
from heapdump.analyses.types.containers import IS_WIDE_TEXT
from heapdump.analyses.types.members import Container, ContainerTable
from heapdump.kernels import counted_members

Numbers = NDArray[np.int64]
_MOST_REFERENCES = 1 << 24
_MOST_FLAGS = 3
_CAPACITY = 0x7FFFFFFF


def prove_qt5_arrays(candidates: Candidates) -> ContainerTable:
    """QString, QByteArray and QVector of Qt 5."""
    found = candidates.of(counted_members.QT5)
    header = 24 if found.width == 8 else 16
    size, capacity = found.value(found.start + 4, 4), found.value(found.start + 8, 4) & _CAPACITY
    element = (found.size - header) // np.maximum(capacity, 1)
    kind = _array_kinds(found, found.start + header, size, element, size < capacity)
    return found.table(kind, size * element, capacity * element)


def prove_qt5_lists(candidates: Candidates) -> ContainerTable:
    """QList of Qt 5 whose first and last element are pointers to blocks."""
    found = candidates.of(counted_members.QT5_LIST)
    capacity, begin, end = (found.value(found.start + place, 4) for place in (4, 8, 12))
    good = np.ones(len(found), bool)
    for number in (begin, end - 1):
        target = found.value(found.start + 16 + number * found.width)
        node = found.graph.nodes.find(target.astype(np.uint64))
        good &= (node >= 0) & (found.graph.start[node] == target) & (node != found.block)
    used, held = (end - begin) * found.width, capacity * found.width
    return found.take(good).table(Container.QLIST, used[good], held[good])


def prove_qt6_arrays(candidates: Candidates) -> ContainerTable:
    """QString, QByteArray and QList of Qt 6."""
    found = candidates.of(counted_members.QT6)
    header = 16 if found.width == 8 else 12
    references, flags = found.value(found.start, 4), found.value(found.start + 4, 4)
    capacity, begin = found.value(found.start + 8), found.word(1)
    good = (references >= 1) & (references < _MOST_REFERENCES) & (flags <= _MOST_FLAGS)
    good &= (begin >= found.start + header) & (found.used <= capacity) & (capacity > 0) & (capacity < found.size)
    found, capacity, begin = found.take(good), capacity[good], begin[good]
    room = found.size - header
    element = room // np.maximum(capacity, 1)
    for width in (2, 1):  # those have room for a zero behind them
        element = np.where((room == (capacity + 1) * width) | (room == capacity * width), width, element)
    left = room - capacity * element  # the zero behind a text
    good = ((left == 0) | ((left == element) & (element <= 2))) & (
        begin + found.used * element <= found.start + found.size
    )
    found, capacity, begin, element = found.take(good), capacity[good], begin[good], element[good]
    kind = _array_kinds(found, begin, found.used, element, begin + found.used * element < found.start + found.size)
    kind[kind == Container.QVECTOR] = Container.QLIST
    return found.table(kind, found.used * element, capacity * element)


def _array_kinds(
    found: Candidates, begin: Numbers, size: Numbers, element: Numbers, has_room: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """QSTRING or QBYTEARRAY for elements of 2 and 1 bytes that a zero ends, else QVECTOR.

    Of a QString the first two letters are text.
    """
    out = np.full(len(found), Container.QVECTOR, np.int64)
    for width, kind in ((1, Container.QBYTEARRAY), (2, Container.QSTRING)):
        rows = np.flatnonzero((element == width) & has_room)
        ends = found.value(begin[rows] + size[rows] * width, width) == 0
        if width == 2:
            for place in range(2):
                letter = found.value(begin[rows] + 2 * place, 2)
                ends &= IS_WIDE_TEXT[letter] | (size[rows] <= place)
        out[rows[ends]] = kind
    return out
