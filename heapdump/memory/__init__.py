"""Room 2, the address space: file ranges become memory, the memory map becomes regions.

In come the arrays of `dump`, out go `AddressSpace` (bytes by address) and `RegionTable` (what Windows said of each
address range). Nothing here knows processes, heaps or structures.
"""
