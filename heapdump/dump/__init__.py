"""Room 1, file → streams: the only room that knows minidumps.

In comes a path, out come frozen records and arrays of what the streams say, with notes on what was wrong.
Nothing here interprets memory: no Windows structure, no heap.

Decision: the header, the directory and the long lists are read by our own `struct`/numpy code, the small streams by
the `minidump` package, one at a time and on a bounded view (`small.py`). The package's whole-file parser needs 30 times
as long, refuses a file for one unknown stream, and follows hostile counts; given up: one reader for everything.

Format facts: Microsoft's minidumpapiset.h documentation; oddities are noted beside the code with the dump they were
seen in.
"""
