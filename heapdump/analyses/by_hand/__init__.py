"""Answers for an engineer who goes on by hand: expressions, memory, structures, code, searches, one module in depth."""
