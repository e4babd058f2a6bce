"""The page heap (DPH): every block ends, or begins, at an inaccessible page; and light page-heap blocks."""
