"""Room 7, analyses: questions put to the process and its heaps. Each is one function with one frozen result.

A result carries `gaps` (what part of the answer is missing and why; makes it incomplete) and `notes` (worth knowing).
"""
