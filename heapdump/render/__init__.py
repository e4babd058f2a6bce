"""Room 8, results → bytes on a stream: tables for people, JSON, JSON Lines and CSV for programs.

Knows nothing of processes or heaps: it gets columns, rows and records. rich is imported only where a table is drawn.
"""
