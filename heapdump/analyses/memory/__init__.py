"""Memory: usage, regions, reconciliation, heaps in depth, capabilities of the dump."""
