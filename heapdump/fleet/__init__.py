"""Many dumps: which files are meant, the engine that works on them, and what their answers have in common.

In: paths and a function that makes a row of one dump. Out: rows as they come, one for each dump, and buckets of rows.
The engine knows `concurrent.futures.Executor` alone: processes of this machine, or the workers of a cluster.
"""
