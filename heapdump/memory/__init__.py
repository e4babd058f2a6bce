"""Room 2, the address space: file ranges become memory, the memory map becomes regions.

In come the arrays of `dump`. Out go `AddressSpace` (single reads by address), `MappedMemory` (many words at once, where
they lie in the file) and `RegionTable` (state and protection of address ranges). Nothing here knows processes, heaps or
structures.
"""
