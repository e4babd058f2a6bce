"""Finds buffers of Qt, Rust, MFC, libc++, and arrays with a capacity, by the words beside the pointers to them.

    LLVM_STRING   { capacity + 1 in bytes; size; pointer }            also in characters of 2 bytes
    QT6           { header; pointer behind it; elements }             header and elements in one block
    HASHBROWN     { control bytes; buckets - 1; room; elements }      or the first two the other way round
    COUNTED       a pointer, and the number of elements in use and in all, in five orders

`analyses/containers/` proves what may be one. Blocks that begin with a header of Qt 5 or of a CString are found before,
by `headers_of`; `counted_of` finds what leads to them.
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output, OutputGrid

LLVM_STRING, LLVM_WSTRING, QT6, HASHBROWN, QT5, QT5_LIST, CSTRING, COUNTED = range(32, 40)
"""Kinds of candidates; COUNTED + 0 to 4: capacity before the pointer, size behind it; capacity, size behind it; size,
capacity behind it; the same two in one word of 8 bytes."""


def headers_of(
    words: ArrayColumn, width: int, place: ArrayColumn, size: ArrayColumn, low: int, high: int, out: Output
) -> int:
    """Writes QT5, QT5_LIST or CSTRING for blocks that begin with such a header, else 0; says how many.

    Block i begins at `words[place[i]]`, words of `width` bytes, place -1 for none. The first word of a CString's header
    leads into [low, high), the data of modules.
    """
    found, half = 0, 0xFFFFFFFF
    for i in range(len(place)):
        out[i], at, bytes_ = 0, place[i], size[i]
        if at < 0 or bytes_ <= 3 * width:
            continue
        if width == 8:
            w0, w1, w2 = words[at], words[at + 1], words[at + 2]
            first, second, third, fourth, offset = w0 & half, (w0 >> 32) & half, w1 & half, (w1 >> 32) & half, w2
            length, room, references = third, fourth, w2 & half
        else:
            w0, first, second = words[at] & half, words[at] & half, words[at + 1] & half
            third, fourth = words[at + 2] & half, words[at + 3] & half
            offset, length, room, references = fourth, second, third, fourth
        header, alloc = 24 if width == 8 else 16, third & 0x7FFFFFFF
        if offset == header and 1 <= first < 1 << 24 and alloc >= 1 and second <= alloc and bytes_ > header:
            if (bytes_ - header) % alloc == 0 and (bytes_ - header) // alloc <= 4096:
                out[i] = 36
        elif 1 <= first < 1 << 24 and third < fourth <= second and bytes_ == 16 + second * width:
            out[i] = 37
        elif low <= w0 < high and length <= room and 1 <= references < 1 << 24:
            out[i] = 38 if bytes_ == header + room + 1 or bytes_ == header + 2 * (room + 1) else 0
        found += out[i] != 0
    return found


def counted_of(
    words: ArrayColumn, mask: int, width: int, place: ArrayColumn, source: ArrayColumn, count: ArrayColumn, k: int,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn, header: ArrayColumn,
    out: OutputGrid,
) -> tuple[int, int]:  # fmt: skip
    """Writes candidates in the sources `k`, `k + 1` … to rows of `out`, as `container_members.containers_of` does.

    `header`: of each block what `headers_of` says. Columns: source, offset of the container in bytes, kind, block,
    elements in use, elements in all (0 where other words tell them).
    """
    found, room, behind = 0, len(out), 24 if width == 8 else 16
    while k < len(source):
        one, many, base = source[k], count[k], place[k]
        edge, edges = first[one], first[one + 1]
        if found + 5 * (edges - edge) > room and found > 0:
            return found, k
        i = -1
        while edge < edges and found + 5 <= room and i + 1 < many:
            i += 1
            value, block = words[base + i] & mask, targets[edge]
            block = block if block >= 0 else -1 - block
            inside, bytes_ = value - start[block], size[block]
            if value == 0 or inside < 0 or (inside != 0 and inside >= bytes_):
                continue
            edge += 1
            w1 = words[base + i - 2] & mask if i >= 2 else 0
            w0 = words[base + i - 1] & mask if i >= 1 else -1
            w2 = words[base + i + 1] & mask if i + 1 < many else -1
            w3 = words[base + i + 2] & mask if i + 2 < many else -1
            w4 = words[base + i + 3] & mask if i + 3 < many else -1
            kind, back, used, held = 0, 0, 0, 0
            if header[block] != 0 and inside == (behind if header[block] == 38 else 0):
                kind = header[block]
            elif inside != 0:
                kind, used, held = 35, w4, w2 + 1
                if not (3 <= w2 < bytes_ and w2 & (w2 + 1) == 0 and 1 <= w4 <= held - w3):
                    used, held, back = w3, w0 + 1, 1
                    if not (3 <= w0 < bytes_ and w0 & (w0 + 1) == 0 and 1 <= w3 <= held - w2):
                        kind = 0
                if bytes_ - inside != held + 16 and bytes_ - inside != held + 8:
                    kind = 0
            elif w1 & 1 != 0 and 0 <= w0 < bytes_ and bytes_ & 7 == 0 and (w1 - 1 == bytes_ or w1 * 2 - 2 == bytes_):
                kind, back, used = 32 if w1 - 1 == bytes_ else 33, 2, w0
            elif value + 12 <= w2 < value + bytes_ and 1 <= w3 <= bytes_:
                kind, used = 34, w3
            if kind != 0:
                out[found, 0], out[found, 1], out[found, 2] = one, (i - back) * width, kind
                out[found, 3], out[found, 4], out[found, 5] = block, used, held
                found += 1
            for order in range(5 if kind == 0 and inside == 0 and bytes_ >= 16 else 0):
                low, high = w2 & 0xFFFFFFFF, (w2 >> 32) & 0xFFFFFFFF
                used = w2 if order in (0, 2) else w3 if order == 1 else low if order == 3 else high
                held = w0 if order == 0 else w2 if order == 1 else w3 if order == 2 else high if order == 3 else low
                if 4 <= held <= bytes_ and 1 <= used <= held and bytes_ % held == 0 and bytes_ // held <= 4096:
                    out[found, 0], out[found, 1], out[found, 2] = one, (i - (order == 0)) * width, 39 + order
                    out[found, 3], out[found, 4], out[found, 5] = block, used, held
                    found += 1
        k += 1
    return found, k
