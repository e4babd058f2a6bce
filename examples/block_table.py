"""Questions to the block table, as a script or cell by cell in a notebook: `python examples/block_table.py crash.dmp`.

`snapshot.walk.table` holds every block of every heap as numpy columns, ascending by address. A question about blocks is
an expression over columns; the table of a dump with 10 million blocks answers in some tens of milliseconds.
"""

# %% Open the dump. The heaps are walked when the table is first asked for.
import sys

import numpy as np

import heapdump

snapshot = heapdump.open_dump(sys.argv[1])
table, heaps = snapshot.walk.table, snapshot.heaps
print(f"{snapshot.process.image}: {len(heaps)} heaps, {len(table):,} blocks")

# %% The program's busy blocks: allocated, and not the allocator's own.
program = table.is_busy & ~table.is_internal
size, heap = table.size[program], table.heap[program]
print(f"busy: {len(size):,} blocks, {int(size.sum()):,} bytes requested")

# %% Bytes by heap.
by_heap = np.bincount(heap, weights=size, minlength=len(heaps))
for number in np.argsort(-by_heap)[:5]:
    found = heaps[number]
    print(f"  heap {found.address:#x} ({found.kind}, trust {found.trust}): {by_heap[number]:,.0f} bytes")

# %% Blocks by powers of two of the requested size.
exponent = np.frexp(np.maximum(size, 1).astype(np.float64))[1] - 1
for power, count in enumerate(np.bincount(exponent)):
    if count:
        print(f"  {2**power:>12,} to {2 ** (power + 1) - 1:>12,} bytes: {count:,} blocks")

# %% How much memory do headers and rounding take?
occupied = int(table.entry_size[program].sum())
print(f"overhead: {occupied - int(size.sum()):,} of {occupied:,} bytes")

# %% The sizes that occur most often, each with one block to look at: `heapdump block crash.dmp ADDRESS`.
values, first, counts = np.unique(size, return_index=True, return_counts=True)
for i in np.argsort(-counts * values.astype(np.float64))[:5]:
    address = int(table.address[program][first[i]])
    print(f"  {int(counts[i]):,} blocks of {int(values[i]):,} bytes, such as {address:#x}")

# %% One row as an object.
if len(size):
    block = table.block(int(np.flatnonzero(program)[0]))
    print(
        f"first: {block.state} {block.kind.word} block at {block.address:#x}, {block.size} of {block.entry_size} bytes"
    )

# %% Close the dump: unmaps the file.
snapshot.close()
