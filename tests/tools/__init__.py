"""Scripts around releases: lower bounds, the bill of materials, wheels for Windows."""
