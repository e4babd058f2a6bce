"""Room 4, the process model: views (one for each pointer size), modules, threads, versions.

In come streams, the address space and layouts; out goes a frozen `Process`. Of heaps only
the addresses of the heap list are read here.
"""
