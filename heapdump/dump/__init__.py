"""Room 1, file → streams: the only room that knows minidumps.

In comes a path, out come frozen records and arrays of what the streams say, with notes on what was wrong.
Nothing here interprets memory: no Windows structure, no heap.

Decision: docs/decisions/0002-own-reader-for-long-streams.md.

Format facts: Microsoft's minidumpapiset.h documentation; oddities are noted beside the code with the dump they were
seen in.
"""
