"""The triage page as data: crash or hang, heap, memory, holders, what the dump cannot tell, next commands."""
