"""Benchmarks: `make bench`. They print numbers and ratios; no test times anything."""
