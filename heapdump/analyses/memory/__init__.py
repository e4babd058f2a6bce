"""Where the memory is: usage, regions, reconciliation, capabilities of the dump."""
