"""Reports that Windows left in the process: exceptions, heap failure records, verifier stops."""
