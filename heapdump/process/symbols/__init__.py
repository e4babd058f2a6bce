"""Names for addresses: exports, PDBs, run-time type information, generated code."""
