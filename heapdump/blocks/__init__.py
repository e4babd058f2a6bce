"""Room 5, the result of walking: heaps, their extents, findings. Plain facts; nobody here reads memory."""
