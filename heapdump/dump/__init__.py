"""Room 1, file → streams: the only room that knows minidumps.

In comes a path. Out come frozen records and arrays with the content of the streams, and notes about damage. Nothing
here interprets memory: this room knows neither structures of Windows nor heaps.

Decision: docs/decisions/0002-own-reader-for-long-streams.md.

Format facts: Microsoft's minidumpapiset.h documentation; oddities are noted beside the code with the dump they were
seen in.
"""
